// SPDX-License-Identifier: Apache-2.0
// Sums of squares, counts of non-finite values, accumulation. Included inside
// nibble::cpu::HWY_NAMESPACE.

using backend::Source;

// 0 for a finite lane, -1 for another.
HWY_INLINE VecI nonfinite_lanes(VecF x) {
  const TagI di;
  const VecI exponent = hn::Set(di, 0x7f800000);
  return hn::VecFromMask(di, hn::Eq(hn::And(hn::BitCast(di, x), exponent), exponent));
}

HWY_INLINE float load_scalar(Source x, std::int64_t i) {
  return x.is_bf16 ? math::bf16_to_float(static_cast<const math::bf16*>(x.data)[i])
                   : static_cast<const float*>(x.data)[i];
}

template <bool kBf16>
HWY_INLINE VecF load_vec(const void* x, std::int64_t i) {
  if constexpr (kBf16) {
    return bf16_to_float(static_cast<const std::uint16_t*>(x) + i);
  } else {
    return hn::LoadU(TagF(), static_cast<const float*>(x) + i);
  }
}

backend::LeafSum sum_leaf(Source x, std::int64_t first, std::int64_t n, float scale) noexcept {
  constexpr std::int64_t kAccumulators = 16;
  using TagD = hn::ScalableTag<double>;
  using TagH = hn::Rebind<float, TagD>;
  constexpr std::int64_t kHalf = kLanes / 2;  // doubles in a vector
  constexpr std::int64_t kParts = kAccumulators / kHalf;
  const TagD dd;
  hn::Vec<TagD> acc[kParts];
  const VecF by = hn::Set(TagF(), scale);
  VecI bad = hn::Zero(TagI());
  for (auto& a : acc) {
    a = hn::Zero(dd);
  }
  for (std::int64_t i = 0; i < n; i += kAccumulators) {
    alignas(64) float group[kAccumulators] = {};
    const auto* from = static_cast<const float*>(x.data) + first + i;
    if (x.is_bf16 || i + kAccumulators > n) {
      for (std::int64_t j = 0; j < std::min(kAccumulators, n - i); ++j) {
        group[j] = load_scalar(x, first + i + j);
      }
      from = group;
    }
    for (std::int64_t v = 0; v < kAccumulators / kLanes; ++v) {
      const VecF value = hn::Mul(hn::LoadU(TagF(), from + v * kLanes), by);
      const VecI nonfinite = nonfinite_lanes(value);
      bad = hn::Sub(bad, nonfinite);
      const VecF finite = hn::AndNot(hn::BitCast(TagF(), nonfinite), value);
      const auto low = hn::PromoteTo(dd, hn::LowerHalf(TagH(), finite));
      const auto high = hn::PromoteTo(dd, hn::UpperHalf(TagH(), finite));
      acc[2 * v] = hn::MulAdd(low, low, acc[2 * v]);  // exact squares: fused or not is the same
      acc[2 * v + 1] = hn::MulAdd(high, high, acc[2 * v + 1]);
    }
  }
  alignas(64) double sums[kAccumulators];
  for (std::int64_t p = 0; p < kParts; ++p) {
    hn::Store(acc[p], dd, sums + p * kHalf);
  }
  return {backend::combine_accumulators(sums), hn::GetLane(hn::SumOfLanes(TagI(), bad))};
}

// The counters have 32 bits, hence the outer loop.
template <bool kBf16>
std::int64_t count_nonfinite_of(Source x, std::int64_t first, std::int64_t n, float scale) {
  constexpr std::int64_t kRun = std::int64_t{1} << 30;
  const TagF df;
  const VecF by = hn::Set(df, scale);
  std::int64_t count = 0;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    VecI bad = hn::Zero(TagI());
    const std::int64_t end = std::min(n, i + kRun);
    for (; i + kLanes <= end; i += kLanes) {
      bad = hn::Sub(bad, nonfinite_lanes(hn::Mul(load_vec<kBf16>(x.data, first + i), by)));
    }
    count += hn::GetLane(hn::SumOfLanes(TagI(), bad));
  }
  for (; i < n; ++i) {
    const float value = load_scalar(x, first + i) * scale;
    count += math::is_finite_bits(std::bit_cast<std::uint32_t>(value)) ? 0 : 1;
  }
  return count;
}

std::int64_t count_nonfinite(Source x, std::int64_t first, std::int64_t n, float scale) noexcept {
  return x.is_bf16 ? count_nonfinite_of<true>(x, first, n, scale)
                   : count_nonfinite_of<false>(x, first, n, scale);
}

template <bool kBf16>
void accumulate_of(Source x, std::int64_t first, std::int64_t n, float scale, float* out) {
  const TagF df;
  const VecF by = hn::Set(df, scale);
  std::int64_t i = first;
  for (; i + kLanes <= first + n; i += kLanes) {
    hn::StoreU(hn::MulAdd(load_vec<kBf16>(x.data, i), by, hn::LoadU(df, out + i)), df, out + i);
  }
  for (; i < first + n; ++i) {
    out[i] = math::fma(load_scalar(x, i), scale, out[i]);
  }
}

void accumulate(Source x, std::int64_t first, std::int64_t n, float scale, float* out) noexcept {
  return x.is_bf16 ? accumulate_of<true>(x, first, n, scale, out)
                   : accumulate_of<false>(x, first, n, scale, out);
}
