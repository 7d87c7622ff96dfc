#include <plait/attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  int wrong = 0;
  {
    plait::World world(MPI_COMM_WORLD);
    plait::Shape shape{.q_tokens = 1024, .kv_tokens = 1024, .q_heads = 8, .kv_heads = 2};
    plait::Problem problem{shape, plait::Mask::causal(1024, 1024), plait::default_scale(shape)};
    plait::Attention attention(world, plait::choose_plan(problem, world.size(), "auto", "auto").plan);

    // Each rank holds the tokens that the plan's layout gives it. Equal keys weigh the same, so that with
    // v = token position the output of token t is the mean of 0..t.
    plait::Layout const& layout = attention.plan().layouts.q;
    plait::Index const rows = layout.tokens(world.rank());
    std::vector<float> q(rows * 8 * 64, 1.0F), k(rows * 2 * 64, 1.0F), v(k), out(q), mean;
    for (plait::Slice slice : layout.slices(world.rank()))
      for (plait::Index token = slice.begin; token < slice.end; ++token) {
        std::fill_n(v.begin() + static_cast<plait::Index>(mean.size()) * 2 * 64, 2 * 64,
                    static_cast<float>(token));
        mean.push_back(static_cast<float>(token) / 2.0F);
      }

    auto const f32 = plait::DType::f32;
    attention.run({.q = plait::dense<void const>(q.data(), f32, 1, rows, 8, 64),
                   .k = plait::dense<void const>(k.data(), f32, 1, rows, 2, 64),
                   .v = plait::dense<void const>(v.data(), f32, 1, rows, 2, 64),
                   .out = plait::dense<void>(out.data(), f32, 1, rows, 8, 64)});

    for (std::size_t i = 0; i < out.size(); ++i)
      if (!(std::abs(out[i] - mean[i / (8 * 64)]) < 1e-3F)) ++wrong;
    std::printf("rank %d of %d: %ld tokens, %d values wrong\n", world.rank(), world.size(), long{rows},
                wrong);
  }
  MPI_Finalize();
  return wrong == 0 ? 0 : 1;
}
