// SPDX-License-Identifier: Apache-2.0
// The SIMD value type of the rules: the same names and the same results as float (math/scalar.h).
// Included inside nibble::cpu::HWY_NAMESPACE. A class, since the rules find its operators by
// argument-dependent lookup.

namespace hn = hwy::HWY_NAMESPACE;

using TagF = hn::ScalableTag<float>;
using TagI = hn::ScalableTag<std::int32_t>;
using VecF = hn::Vec<TagF>;
using VecI = hn::Vec<TagI>;
inline constexpr std::int64_t kLanes = HWY_LANES(float);

struct Vec {
  VecF raw;
};

HWY_INLINE Vec operator+(Vec a, Vec b) { return {hn::Add(a.raw, b.raw)}; }
HWY_INLINE Vec operator-(Vec a, Vec b) { return {hn::Sub(a.raw, b.raw)}; }
HWY_INLINE Vec operator*(Vec a, Vec b) { return {hn::Mul(a.raw, b.raw)}; }
HWY_INLINE Vec operator/(Vec a, Vec b) { return {hn::Div(a.raw, b.raw)}; }
HWY_INLINE Vec fma(Vec a, Vec b, Vec c) { return {hn::MulAdd(a.raw, b.raw, c.raw)}; }
HWY_INLINE Vec sqrt(Vec a) { return {hn::Sqrt(a.raw)}; }
