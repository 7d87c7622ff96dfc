// What the paths share that multiply bf16 as it is, two of them in a word. Needs AVX512_BF16 and avx512.inl.

constexpr Index word_elements = 2;

/// Rounded to bf16, two a word, over the scores that have been read.
inline void store_weights(float* row, Index column, Vector weights) {
  __m256bh const narrow = _mm512_cvtneps_pbh(weights);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + column / 2), reinterpret_cast<__m256i>(narrow));
}

/// The same of two vectors of columns, at `words`.
inline void store_weight_pair(float* words, Vector first, Vector second) {
  store_vector(words, reinterpret_cast<Vector>(_mm512_cvtne2ps_pbh(second, first)));
}
