// SPDX-License-Identifier: Apache-2.0
// Scalar functions of CUDA that kernels use. Part of device.h. The ones of <cmath> are global names
// already; their last bits may differ from a GPU's, those of the ones below do not.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

inline unsigned __float_as_uint(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<std::int32_t>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float value) { return std::sqrt(value); }

// To the nearest, ties to even. A GPU saturates and takes NaN as 0; the cast in C++ would not be
// defined.
inline int __float2int_rn(float value) {
  if (std::isnan(value)) {
    return 0;
  }
  const float rounded = std::nearbyint(value);
  if (rounded >= 0x1p31F) {
    return INT32_MAX;
  }
  return rounded < -0x1p31F ? INT32_MIN : static_cast<int>(rounded);
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}

template <class T>
inline T __ldcs(const T* address) {
  return *address;
}

template <class T>
inline T __ldg(const T* address) {
  return *address;
}

template <class T>
inline void __stcs(T* address, T value) {
  *address = value;
}
