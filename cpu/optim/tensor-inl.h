// SPDX-License-Identifier: Apache-2.0
// Functions over plain tensors: quantisation, products of matrices. Included inside
// nibble::cpu::HWY_NAMESPACE.

void quantize(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
              math::Rounding rounding, std::uint8_t* codes, float* scale) noexcept {
  for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t i) {
    const std::uint32_t largest = largest_bits(x + begin, count);
    kEncode[format][is_signed](x + begin, count, block, &largest, rounding,
                               codes + math::kFormats[format].packed_bytes(begin), scale + i);
  });
}

// `out` at a multiple of 64 bytes, n a multiple of the lanes.
HWY_INLINE void stream_floats(const float* from, std::int64_t n, float* out) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    hn::Stream(hn::Load(TagF(), from + i), TagF(), out + i);
  }
}

// Decoders write whole groups: what would not end with one goes through a stage.
void dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n, std::int64_t block,
                int format, bool is_signed, bool past_caches, float* out) noexcept {
  alignas(64) float stage[math::kMaxBlock + kGroup];
  const bool stream = past_caches && reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
  for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t i) {
    const bool whole = count % kGroup == 0;
    kDecode[format][is_signed](codes + math::kFormats[format].packed_bytes(begin), scale + i, count,
                               block, whole && !stream ? out + begin : stage);
    if (!whole) {
      std::memcpy(out + begin, stage, static_cast<std::size_t>(count) * sizeof(float));
    } else if (stream) {
      stream_floats(stage, count, out + begin);
    }
  });
  if (stream) {
    hwy::FlushStream();
  }
}

// kRows x kVecs vectors of c stay in registers while depth runs.
template <int kRows, int kVecs>
HWY_INLINE void matmul_tile(const float* a, const float* b, float* c, std::int64_t columns,
                            std::int64_t depth) {
  const TagF df;
  VecF acc[kRows][kVecs];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      acc[i][v] = hn::Zero(df);
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    VecF right[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      right[v] = hn::LoadU(df, b + k * columns + v * kLanes);
    }
    for (int i = 0; i < kRows; ++i) {
      const VecF left = hn::Set(df, a[i * depth + k]);
      for (int v = 0; v < kVecs; ++v) {
        acc[i][v] = hn::MulAdd(left, right[v], acc[i][v]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      hn::StoreU(acc[i][v], df, c + i * columns + v * kLanes);
    }
  }
}

inline void matmul_scalar(const float* a, const float* b, float* c, std::int64_t columns,
                          std::int64_t depth, std::int64_t from) {
  for (std::int64_t j = from; j < columns; ++j) {
    float sum = 0.0F;
    for (std::int64_t k = 0; k < depth; ++k) {
      sum = math::fma(a[k], b[k * columns + j], sum);
    }
    c[j] = sum;
  }
}

template <int kVecs>
HWY_INLINE void matmul_strip(const float* a, const float* b, float* c, std::int64_t rows,
                             std::int64_t columns, std::int64_t depth) {
  constexpr int kTile = HWY_TARGET == HWY_AVX2 ? 6 : 8;
  std::int64_t i = 0;
  for (; i + kTile <= rows; i += kTile) {
    matmul_tile<kTile, kVecs>(a + i * depth, b, c + i * columns, columns, depth);
  }
  for (; i < rows; ++i) {
    matmul_tile<1, kVecs>(a + i * depth, b, c + i * columns, columns, depth);
  }
}

// Strips of columns outside, so that a strip of b stays in the cache while the rows pass.
void matmul(const float* a, const float* b, float* c, std::int64_t rows, std::int64_t columns,
            std::int64_t depth) noexcept {
  constexpr int kWide = HWY_TARGET == HWY_AVX2 ? 2 : 3;
  std::int64_t j = 0;
  for (; j + kWide * kLanes <= columns; j += kWide * kLanes) {
    matmul_strip<kWide>(a, b + j, c + j, rows, columns, depth);
  }
  for (; j + kLanes <= columns; j += kLanes) {
    matmul_strip<1>(a, b + j, c + j, rows, columns, depth);
  }
  for (std::int64_t i = 0; i < rows && j < columns; ++i) {
    matmul_scalar(a + i * depth, b, c + i * columns, columns, depth, j);
  }
}
