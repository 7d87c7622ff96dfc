// The shapes of what is packed for the micro-kernel, whichever way it multiplies.

constexpr Index panel_vectors = 2;
constexpr Index panel = panel_vectors * lanes;
constexpr Index largest_block = 512;  // keys that are packed at once, at most
constexpr Index largest_dim = 512;
// Words from one row of a block to the next, in all its arrays: a constant, so that the micro-kernel's
// addresses are one register and offsets; and not a multiple of 2 KiB, so that rows do not share cache sets.
constexpr Index row_stride = largest_dim + 16;
