// SPDX-License-Identifier: Apache-2.0
// 4-bit states of a matrix with the scale min(row, column). Included inside
// nibble::cpu::HWY_NAMESPACE.

// f(row, column, i, count) for the pieces of rows in the n elements from `begin`; element i of them
// is the piece's first.
template <class F>
HWY_INLINE void for_each_row(std::int64_t columns, std::int64_t begin, std::int64_t n, const F& f) {
  std::int64_t row = begin / columns;
  std::int64_t column = begin % columns;
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t count = std::min(columns - column, n - i);
    f(row, column, i, count);
    i += count;
    column = 0;
    ++row;
  }
}

// The scales of n elements; 0 behind them, to the end of the group.
HWY_INLINE void fill_scales(const float* row, const float* column, std::int64_t columns,
                            std::int64_t begin, std::int64_t n, float* out) {
  for_each_row(
      columns, begin, n, [&](std::int64_t r, std::int64_t c, std::int64_t i, std::int64_t count) {
        const VecF in_row = hn::Set(TagF(), row[r]);
        std::int64_t j = 0;
        for (; j + kLanes <= count; j += kLanes) {
          hn::StoreU(hn::Min(in_row, hn::LoadU(TagF(), column + c + j)), TagF(), out + i + j);
        }
        for (; j < count; ++j) {
          out[i + j] = math::Int4Rank1::scale_at(row[r], column[c + j]);
        }
      });
  std::fill(out + n, out + (n + kGroup - 1) / kGroup * kGroup, 0.0F);
}

HWY_INLINE void decode_rank1(const float* row, const float* column, std::int64_t columns,
                             std::int64_t begin, std::int64_t n, const std::uint8_t* codes,
                             float* out) {
  alignas(64) float scales[math::kMaxBlock];
  fill_scales(row, column, columns, begin, n, scales);
  const Table16 table(math::kLinear4Unsigned.value.data());
  for (std::int64_t i = 0; i < n; i += kGroup) {
    alignas(64) std::uint8_t bytes[kGroup];
    std::uint8_t padded[kGroup / 2] = {};
    const std::uint8_t* from = codes + i / 2;
    if (i + kGroup > n) {
      std::memcpy(padded, from, static_cast<std::size_t>((n - i + 1) / 2));
      from = padded;
    }
    unpack_nibbles(from, bytes);
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      const VecI code = hn::PromoteTo(TagI(), hn::Load(TagU8(), bytes + v));
      const VecF scale = hn::Load(TagF(), scales + i + v);
      hn::StoreU(hn::Mul(table[code], scale), TagF(), out + i + v);
    }
  }
}

HWY_INLINE void encode_rank1(const float* row, const float* column, std::int64_t columns,
                             std::int64_t begin, std::int64_t n, const float* x,
                             std::uint8_t* codes) {
  const TagF df;
  const VecF floor = hn::Set(df, math::kScaleFloor);
  alignas(64) float scales[math::kMaxBlock];
  fill_scales(row, column, columns, begin, n, scales);
  for (std::int64_t i = 0; i < n; i += kGroup) {
    alignas(64) float padded[kGroup] = {};
    const float* from = x + i;
    const std::int64_t count = std::min(kGroup, n - i);
    if (count < kGroup) {
      std::memcpy(padded, from, static_cast<std::size_t>(count) * sizeof(float));
      from = padded;
    }
    VecI code[kGroupVecs];
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      const VecF value = hn::Max(hn::LoadU(df, from + v * kLanes), hn::Zero(df));
      const VecF scale = hn::Max(hn::Load(df, scales + i + v * kLanes), floor);
      code[v] = linear4_codes(hn::Div(value, scale));
    }
    std::uint8_t out[kGroup / 2];
    pack_nibbles(code, out);
    std::memcpy(codes + i / 2, out, static_cast<std::size_t>((count + 1) / 2));
  }
}
