#include <plait/attention.hpp>

#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  float first = 1.0F;
  {
    plait::World world(MPI_COMM_WORLD);
    plait::Shape const shape{.q_tokens = 1024, .kv_tokens = 1024, .q_heads = 8, .kv_heads = 2};
    plait::Problem const problem{shape, plait::Mask::causal(1024, 1024), plait::default_scale(shape)};
    plait::Attention attention(world, plait::choose_plan(problem, world.size(), "auto", "auto").plan);

    // This rank's tokens are those of its slices in the plan's layout, one after the other.
    plait::Index const rows = attention.plan().layouts.q.tokens(world.rank());
    std::vector<float> q(rows * 8 * 64, 0.5F), k(rows * 2 * 64, 0.5F), v(rows * 2 * 64, 1.0F), out(q.size());
    auto const f32 = plait::DType::f32;
    attention.run({.q = plait::dense<void const>(q.data(), f32, 1, rows, 8, 64),
                   .k = plait::dense<void const>(k.data(), f32, 1, rows, 2, 64),
                   .v = plait::dense<void const>(v.data(), f32, 1, rows, 2, 64),
                   .out = plait::dense<void>(out.data(), f32, 1, rows, 8, 64)});
    first = out.empty() ? 1.0F : out[0];  // a mean of ones
    std::printf("rank %d of %d: %ld tokens, out[0] = %g\n", world.rank(), world.size(), long{rows}, first);
  }
  MPI_Finalize();
  return first == 1.0F ? 0 : 1;
}
