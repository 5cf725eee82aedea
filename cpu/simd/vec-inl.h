// SPDX-License-Identifier: Apache-2.0
// The SIMD value type of the rules: the same names and the same results as float (math/scalar.h).
// Included inside nibble::cpu::HWY_NAMESPACE. A class, since the rules find its operators by
// argument-dependent lookup.

namespace hn = hwy::HWY_NAMESPACE;

using TagF = hn::ScalableTag<float>;
using TagI = hn::ScalableTag<std::int32_t>;
using TagU16 = hn::Rebind<std::uint16_t, TagF>;
using TagU8 = hn::Rebind<std::uint8_t, TagF>;
using VecF = hn::Vec<TagF>;
using VecI = hn::Vec<TagI>;
inline constexpr std::int64_t kLanes = HWY_LANES(float);

// Codecs work on groups: stages are padded to whole groups.
inline constexpr std::int64_t kGroup = 64;
inline constexpr std::int64_t kGroupVecs = kGroup / kLanes;

struct Vec {
  VecF raw;
};

HWY_INLINE Vec operator+(Vec a, Vec b) { return {hn::Add(a.raw, b.raw)}; }
HWY_INLINE Vec operator-(Vec a, Vec b) { return {hn::Sub(a.raw, b.raw)}; }
HWY_INLINE Vec operator*(Vec a, Vec b) { return {hn::Mul(a.raw, b.raw)}; }
HWY_INLINE Vec operator/(Vec a, Vec b) { return {hn::Div(a.raw, b.raw)}; }
HWY_INLINE Vec fma(Vec a, Vec b, Vec c) { return {hn::MulAdd(a.raw, b.raw, c.raw)}; }
HWY_INLINE Vec sqrt(Vec a) { return {hn::Sqrt(a.raw)}; }
HWY_INLINE Vec max(Vec a, Vec b) { return {hn::Max(a.raw, b.raw)}; }
HWY_INLINE Vec sign(Vec a) {
  const TagF df;
  const VecF zero = hn::Zero(df);
  const VecF positive = hn::IfThenElseZero(hn::Gt(a.raw, zero), hn::Set(df, 1.0F));
  return {hn::IfThenElse(hn::Lt(a.raw, zero), hn::Set(df, -1.0F), positive)};
}

HWY_INLINE VecF bf16_to_float(const std::uint16_t* from) {
  const TagI di;
  const auto wide = hn::PromoteTo(hn::ScalableTag<std::uint32_t>(), hn::LoadU(TagU16(), from));
  return hn::BitCast(TagF(), hn::ShiftLeft<16>(hn::BitCast(di, wide)));
}

// The upper halves of 32-bit lanes.
HWY_INLINE void store_upper_halves(VecI v, std::uint16_t* to) {
  const hn::ScalableTag<std::uint32_t> du;
  const auto upper = hn::ShiftRight<16>(hn::BitCast(du, v));
#if HWY_TARGET == HWY_AVX2
  hn::StoreU(hn::DemoteTo(TagU16(), hn::BitCast(TagI(), upper)), TagU16(), to);
#else
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(upper.raw));
#endif
}

// Nearest even, in the upper halves; NaN stays NaN (math::float_to_bf16).
HWY_INLINE VecI round_to_bf16(VecF x) {
  const TagI di;
  const VecI bits = hn::BitCast(di, x);
  const VecI lowest = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 1));
  const VecI rounded = hn::Add(bits, hn::Add(lowest, hn::Set(di, 0x7fff)));
  const auto is_nan = hn::RebindMask(di, hn::IsNaN(x));
  return hn::IfThenElse(is_nan, hn::Or(bits, hn::Set(di, 0x400000)), rounded);
}
