// What the ranks of a mesh hold: query rows and key columns, at rest or gathered from what arrives.
#pragma once

#include <cstddef>
#include <vector>

#include "gather.hpp"
#include "plait/plan.hpp"

namespace plait {

/// Sent from the caller's own tensor, not from a piece that was gathered.
inline constexpr std::size_t resting = ~std::size_t{0};

/// A block that no step needs.
inline constexpr BlockId unnamed = -1;

/// Queries or keys of one head share on one rank: at rest, or gathered from arrivals.
struct Piece {
  BlockId block;
  Slice slice;
  std::vector<Arrival> arrivals = {};  ///< none: at rest
  SlotId slot = at_rest;
  bool own = true;        ///< of its group's tokens
  std::size_t ready = 0;  ///< the first round in which it can be used
};

/// Query rows on a rank: its group's (own), or foreign ones, whose states return.
struct Row : Piece {
  std::size_t met = 0;      ///< the first columns: folded, or nothing to fold
  std::size_t pending = 0;  ///< columns that are not met
  SlotId state = at_rest;
  std::size_t states_expected = 0;  ///< from foreign ranks
  bool leaving = false;             ///< its state, or its output, is sent in the next round
  bool finished = false;
  SlotId out = at_rest;
};

/// What a rank of a mesh holds.
struct RankPieces {
  std::vector<Row> rows;
  std::vector<Piece> columns;  ///< in the order in which they can be used
  std::size_t here = 0;        ///< columns that can be used in the round at hand
  std::size_t keys_ready = 0;  ///< the first round in which all columns can be used
  Index turn = 0;              ///< pairs to fold in a round once all is here
  std::size_t early = 0;       ///< rows that stay at home to be folded before that
};

/// A state on its way back.
struct Return {
  int rank;
  std::size_t row;
  SlotId slot;
};

/// A row, or a column, of a rank that arrives.
struct Due {
  int rank;
  bool is_row;
  std::size_t number;
};

}  // namespace plait
