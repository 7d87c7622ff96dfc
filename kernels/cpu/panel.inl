// The shapes of what is packed for the micro-kernel, whichever way it multiplies.

constexpr Index panel_vectors = 2;
constexpr Index panel = panel_vectors * lanes;
constexpr Index word_bytes = static_cast<Index>(sizeof(float));
