#include "fold_work.hpp"

#include <omp.h>

#include <algorithm>

#include "plait/rounding.hpp"
#include "state_row.hpp"

namespace plait::cpu {
namespace {

constexpr std::size_t alignment = 64;

class Work {
 public:
  Work(FoldPath const& path, TileList const& list, FoldOperands const& operands, int threads,
       FoldScratch const& scratch)
      : path_(path),
        list_(list),
        operands_(operands),
        threads_(threads),
        scratch_(scratch),
        group_(operands.q.heads / operands.k.heads),
        heads_(group_) {
    for (QueryTile const& tile : list.tiles) rows_ = std::max(rows_, tile.rows.size());
    few_ = group_ * rows_ <= path.group_rows;
    if (few_) {
      kv_heads_ = std::min(operands.k.heads, few_rows / (group_ * rows_));
      return;
    }
    // Fewer query heads an item, as long as the keys packed for them serve enough rows: a quarter of a tile.
    while (items() < threads_ && heads_ * rows_ / 2 >= tile_rows / 4 && heads_ > 1) {
      heads_ = divided_up(heads_, 2);
    }
  }

  void run() {
    if (list_.tiles.empty()) return;
    if (items() < threads_) {
      heads_ = std::min(heads_, tile_rows / rows_);  // a partial state holds as many rows as a tile
      for (Index item = 0; item < items(); ++item) split(item);
      return;
    }
    // Keys are packed once for an item's tiles. With one thread these are many; else some items per thread,
    // the longest first, so that none is left with one at the end.
    if (!few_) tiles_ = tiles_of_item();
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (Index item = 0; item < items(); ++item) run_item(item_at(item, omp_get_thread_num()));
  }

 private:
  [[nodiscard]] Index tile_shares() const {
    return divided_up(static_cast<Index>(list_.tiles.size()), tiles_);
  }
  [[nodiscard]] Index lanes() const {
    return operands_.q.batch * divided_up(operands_.k.heads, kv_heads_);
  }
  [[nodiscard]] Index head_shares() const {
    return divided_up(group_, heads_);
  }
  [[nodiscard]] Index items() const {
    return tile_shares() * lanes() * head_shares();
  }

  [[nodiscard]] Index tiles_of_item() const {
    auto const tiles = static_cast<Index>(list_.tiles.size());
    Index const most =
        threads_ == 1 ? item_tiles : std::clamp<Index>(items() / (4 * threads_), 1, item_tiles);
    return divided_up(tiles, divided_up(tiles, most));  // about as many in each
  }

  /// Items are in the order of their tiles' areas, the largest first.
  [[nodiscard]] FoldItem item_at(Index item, int thread) const {
    Index const tile = item / (lanes() * head_shares()) * tiles_;
    Index const lane = item / head_shares() % lanes();
    Index const batch = lane % operands_.q.batch;
    Index const kv_head = lane / operands_.q.batch * kv_heads_;
    Index const kv_end = std::min(kv_head + kv_heads_, operands_.k.heads);
    Index const head = kv_head * group_ + item % head_shares() * heads_;
    Index const end = kv_heads_ == 1 ? std::min(head + heads_, kv_end * group_) : kv_end * group_;
    return {.operands = operands_,
            .list = list_,
            .tiles = {tile, std::min(tile + tiles_, static_cast<Index>(list_.tiles.size()))},
            .batch = batch,
            .kv_head = kv_head,
            .heads = {head, end},
            .stretch = {list_.tiles[at(tile)].first, list_.tiles[at(tile)].last},
            .state = operands_.state,
            .origin = batch * operands_.state.heads * operands_.state.rows,
            .scratch = scratch_.path(thread)};
  }

  void run_item(FoldItem const& item) const {
    (few_ ? path_.fold_few : path_.fold)(item);
  }

  /// One item whose keys are split over the threads: the first part goes to the state itself, the others to
  /// partial states, which are merged in the order of the keys.
  void split(Index index) const {
    FoldItem const whole = item_at(index, 0);
    Slice const rows = list_.tiles[at(whole.tiles.begin)].rows;
    Index const parts = parts_of(whole);
    auto const partial = [&](Index part) {
      return state_view(scratch_.partial(static_cast<int>(part)), 1, whole.heads.size(), rows.size(),
                        operands_.state.value_dim);
    };
    Index const partial_rows = whole.heads.size() * rows.size();
#pragma omp parallel num_threads(threads_)
    {
#pragma omp for schedule(static, 1)
      for (Index part = 0; part < parts; ++part) {
        FoldItem mine = item_at(index, omp_get_thread_num());
        mine.stretch = stretch_of(whole.stretch, part, parts);
        if (part > 0) {
          mine.state = partial(part);
          mine.origin = -(whole.heads.begin * rows.size() + rows.begin);
          for (Index row = 0; row < partial_rows; ++row) clear_row(mine.state, row);
        }
        run_item(mine);
      }
#pragma omp for
      for (Index row = 0; row < partial_rows; ++row) {
        Index const head = whole.heads.begin + row / rows.size();
        Index const into = whole.origin + head * operands_.state.rows + rows.begin + row % rows.size();
        for (Index part = 1; part < parts; ++part) merge_row(partial(part), row, operands_.state, into);
      }
    }
  }

  [[nodiscard]] Index keys_of(Stretch const& stretch) const {
    Index keys = 0;
    for (Index i = stretch.first; i < stretch.last; ++i) keys += list_.ranges[at(i)].keys.size();
    return keys;
  }

  /// As many as threads, but none so short that starting it and merging it would cost more than it saves.
  [[nodiscard]] Index parts_of(FoldItem const& item) const {
    constexpr Index least_work = Index{1} << 18;  // multiply-adds
    Index const keys = keys_of(item.stretch);
    Index const work =
        list_.tiles[at(item.tiles.begin)].area * item.heads.size() * (operands_.q.dim + operands_.v.dim);
    return std::clamp<Index>(std::min(keys / part_keys, work / least_work), 1, threads_);
  }

  /// Part `part` of `parts` of about as many keys each.
  [[nodiscard]] Stretch stretch_of(Stretch const& all, Index part, Index parts) const {
    Index const keys = keys_of(all);
    auto const cut = [&](Index which) {
      return which == parts ? keys : keys * which / parts / part_keys * part_keys;
    };
    Stretch mine{.first = all.first, .last = all.first};
    Index before = 0;  // keys of the ranges before `last`
    for (; mine.last < all.last && before < cut(part + 1); ++mine.last) {
      Index const size = list_.ranges[at(mine.last)].keys.size();
      if (before + size <= cut(part)) {
        mine.first = mine.last + 1;
      } else if (before <= cut(part)) {
        mine.skipped = cut(part) - before;
      }
      before += size;
    }
    mine.left = std::max<Index>(before - cut(part + 1), 0);
    return mine;
  }

  [[nodiscard]] static std::size_t at(Index index) {
    return static_cast<std::size_t>(index);
  }

  static constexpr Index part_keys = 64;  // parts are multiples of it

  FoldPath const& path_;
  TileList const& list_;
  FoldOperands const& operands_;
  int threads_;
  FoldScratch const& scratch_;
  Index group_;         ///< query heads of a key/value head
  Index rows_ = 1;      ///< of the tallest tile
  bool few_ = false;    ///< whether fold_few takes the items
  Index tiles_ = 1;     ///< of an item, as are the next two
  Index kv_heads_ = 1;  ///< with all their query heads, if there are several
  Index heads_;         ///< query heads of one key/value head
};

}  // namespace

FoldScratch::FoldScratch(FoldPath const& path, Index head_dim, Index value_dim, int threads)
    : threads_(threads),
      path_bytes_(rounded_up(path.scratch_floats(head_dim, value_dim) * sizeof(float), alignment)),
      partial_bytes_(threads > 1 ? rounded_up(state_bytes(1, 1, tile_rows, value_dim), alignment) : 0) {}

FoldScratch FoldScratch::larger(FoldScratch const& other) const {
  FoldScratch both = *this;
  both.threads_ = std::max(threads_, other.threads_);
  both.path_bytes_ = std::max(path_bytes_, other.path_bytes_);
  both.partial_bytes_ = std::max(partial_bytes_, other.partial_bytes_);
  both.memory_ = nullptr;
  return both;
}

float* FoldScratch::path(int thread) const {
  return reinterpret_cast<float*>(memory_ + per_thread() * static_cast<std::size_t>(thread));
}

float* FoldScratch::partial(int thread) const {
  return reinterpret_cast<float*>(memory_ + per_thread() * static_cast<std::size_t>(thread) + path_bytes_);
}

Slice ranges_of(FoldItem const& item, Index tile) {
  if (item.tiles.size() == 1) return {item.stretch.first, item.stretch.last};
  QueryTile const& entry = item.list.tiles[static_cast<std::size_t>(tile)];
  return {entry.first, entry.last};
}

KeyRange range_at(FoldItem const& item, Index range) {
  KeyRange cut = item.list.ranges[static_cast<std::size_t>(range)];
  if (item.tiles.size() > 1) return cut;
  if (range == item.stretch.first) cut.keys.begin += item.stretch.skipped;
  if (range + 1 == item.stretch.last) cut.keys.end -= item.stretch.left;
  return cut;
}

void fold(FoldPath const& path, TileList const& list, FoldOperands const& operands, int threads,
          FoldScratch const& scratch) {
  Work(path, list, operands, threads, scratch).run();
}

}  // namespace plait::cpu
