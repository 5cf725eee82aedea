// SPDX-License-Identifier: Apache-2.0
// Sums of squares and counts of non-finite values. Included inside nibble::cpu::HWY_NAMESPACE.

// 0 for a finite lane, -1 for another.
HWY_INLINE VecI nonfinite_lanes(VecF x) {
  const TagI di;
  const VecI exponent = hn::Set(di, 0x7f800000);
  return hn::VecFromMask(di, hn::Eq(hn::And(hn::BitCast(di, x), exponent), exponent));
}

backend::LeafSum sum_leaf(const float* x, std::int64_t n) noexcept {
  constexpr std::int64_t kAccumulators = 16;
  using TagD = hn::ScalableTag<double>;
  using TagH = hn::Rebind<float, TagD>;
  constexpr std::int64_t kHalf = kLanes / 2;  // doubles in a vector
  constexpr std::int64_t kParts = kAccumulators / kHalf;
  const TagD dd;
  hn::Vec<TagD> acc[kParts];
  VecI bad = hn::Zero(TagI());
  for (auto& a : acc) {
    a = hn::Zero(dd);
  }
  for (std::int64_t i = 0; i < n; i += kAccumulators) {
    alignas(64) float group[kAccumulators] = {};
    const float* from = x + i;
    if (i + kAccumulators > n) {
      std::memcpy(group, from, static_cast<std::size_t>(n - i) * sizeof(float));
      from = group;
    }
    for (std::int64_t v = 0; v < kAccumulators / kLanes; ++v) {
      const VecF value = hn::LoadU(TagF(), from + v * kLanes);
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
std::int64_t count_nonfinite(const float* x, std::int64_t n, float scale) noexcept {
  constexpr std::int64_t kRun = std::int64_t{1} << 30;
  const TagF df;
  const VecF by = hn::Set(df, scale);
  std::int64_t count = 0;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    VecI bad = hn::Zero(TagI());
    const std::int64_t end = std::min(n, i + kRun);
    for (; i + kLanes <= end; i += kLanes) {
      bad = hn::Sub(bad, nonfinite_lanes(hn::Mul(hn::LoadU(df, x + i), by)));
    }
    count += hn::GetLane(hn::SumOfLanes(TagI(), bad));
  }
  for (; i < n; ++i) {
    count += math::is_finite_bits(std::bit_cast<std::uint32_t>(x[i] * scale)) ? 0 : 1;
  }
  return count;
}
