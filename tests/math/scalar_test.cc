// SPDX-License-Identifier: Apache-2.0
// Random bits and the small floats: against published vectors, and against arithmetic in double.
#include "math/scalar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "math/bf16.h"
#include "math/fp16.h"
#include "math/philox.h"

namespace nibble::math {
namespace {

// Salmon et al.'s own known answers (Random123, kat_vectors: philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, 0, 0),
            (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffffU;
  EXPECT_EQ(philox4x32_10({ones, ones, ones, ones}, ones, ones),
            (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Where an element's bits come from is in every checkpoint: counter, key and lane.
TEST(Philox, ElementsHaveTheirPlaceInTheStream) {
  const std::uint64_t seed = 0x0123456789abcdefU;
  const RandomStream stream{seed, 77, 88, RandomPurpose::kRounding};
  for (const std::uint64_t element : {0ULL, 1ULL, 6ULL, 1023ULL, (5ULL << 34) + 7}) {
    const std::uint64_t group = element >> 2;
    const Philox4 out = philox4x32_10({static_cast<std::uint32_t>(group), 77, 88,
                                       4U | static_cast<std::uint32_t>(group >> 32) << 8},
                                      0x89abcdefU, 0x01234567U);
    EXPECT_EQ(stream.bits(element), out[element & 3U]) << element;
    EXPECT_EQ(double{stream.uniform(element)}, std::ldexp(out[element & 3U] >> 8, -24)) << element;
  }
}

TEST(Philox, PurposesAndTensorIdsNeverChange) {
  EXPECT_EQ(static_cast<int>(RandomPurpose::kInit), 1);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kDropout), 2);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kShuffle), 3);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kRounding), 4);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kProjection), 5);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kSampling), 6);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kSplit), 7);
  // FNV-1a's published vectors.
  EXPECT_EQ(tensor_id(""), 0x811c9dc5U);
  EXPECT_EQ(tensor_id("a"), 0xe40c292cU);
  EXPECT_EQ(tensor_id("foobar"), 0xbf9cf968U);
}

// The value of bits with `fraction` bits of mantissa and this exponent bias, from the definition.
double value_of(std::uint32_t bits, int width, int fraction, int bias) {
  const double sign = (bits >> (width - 1)) != 0 ? -1.0 : 1.0;
  const auto mantissa = static_cast<int>(bits & ((1U << fraction) - 1));
  const auto exponent = static_cast<int>((bits >> fraction) & ((1U << (width - 1 - fraction)) - 1));
  if (exponent == (1 << (width - 1 - fraction)) - 1) {
    return mantissa != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  }
  const int implied = exponent == 0 ? 0 : 1 << fraction;
  return sign * std::ldexp(implied + mantissa, std::max(exponent, 1) - bias - fraction);
}

TEST(SmallFloats, EveryPatternHasItsValue) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto pattern = static_cast<std::uint16_t>(bits);
    const double half = value_of(bits, 16, 10, 15);
    const double brain = value_of(bits, 16, 7, 127);
    ASSERT_EQ(std::isnan(half), std::isnan(fp16_to_float(pattern))) << bits;
    ASSERT_EQ(std::isnan(brain), std::isnan(bf16_to_float(pattern))) << bits;
    if (!std::isnan(half)) {
      ASSERT_EQ(double{fp16_to_float(pattern)}, half) << bits;
    }
    if (!std::isnan(brain)) {
      ASSERT_EQ(double{bf16_to_float(pattern)}, brain) << bits;
    }
    ASSERT_EQ(std::signbit(fp16_to_float(pattern)), (bits >> 15) != 0) << bits;
    ASSERT_EQ(std::signbit(bf16_to_float(pattern)), (bits >> 15) != 0) << bits;
  }
}

// Between neighbours a < b: below the middle a, above it b, at it the even one; NaN stays NaN.
TEST(SmallFloats, Bf16RoundsToNearestEven) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    if ((bits & 0x7fffU) >= 0x7f80U) {
      continue;  // infinity and NaN
    }
    const std::uint32_t low = bits << 16;
    const std::uint32_t even = bits + (bits & 1U);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(low)), bits);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(low + 0x7fffU)), bits);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(low + 0x8000U)), even);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(low + 0x8001U)), bits + 1);
  }
  for (const std::uint32_t sign : {0U, 0x80000000U}) {
    EXPECT_EQ(float_to_bf16(std::bit_cast<float>(sign | 0x7f800000U)), (sign >> 16) | 0x7f80U);
    for (const std::uint32_t payload : {1U, 0x7fffU, 0x8000U, 0x12345U, 0x400000U, 0x7fffffU}) {
      const bf16 out = float_to_bf16(std::bit_cast<float>(sign | 0x7f800000U | payload));
      EXPECT_EQ(out, (sign >> 16) | 0x7fc0U | (payload >> 16)) << payload;
    }
  }
}

// Beside the C library's in long double: relative errors in units of a double's last place.
double units_off(double ours, long double expected) {
  if (expected == 0.0L || std::isinf(static_cast<double>(expected))) {
    return ours == static_cast<double>(expected) ? 0.0 : 1e9;
  }
  const int exponent = std::max(std::ilogb(static_cast<double>(expected)), -1022);
  return static_cast<double>(std::abs(ours - expected) / std::ldexp(1.0L, exponent - 52));
}

TEST(Elementary, LogarithmsAreTheLibrarys) {
  double worst = 0.0;
  for (int e = -1074; e < 1024; ++e) {
    for (const double m : {1.0, 1.1, 1.4142135623730949, 1.4142135623730954, 1.7, 2 - 1e-15}) {
      const double x = std::ldexp(m, e);
      if (std::isfinite(x)) {
        worst = std::max(worst, units_off(log(x), std::log(static_cast<long double>(x))));
      }
    }
  }
  for (double near = 1e-16; near < 0.9; near *= 1.3) {
    for (const double x : {1.0 - near, 1.0 + near}) {
      worst = std::max(worst, units_off(log(x), std::log(static_cast<long double>(x))));
    }
  }
  for (double t = 1; t < 0x1p53; t = std::floor(t * 1.01) + 1) {
    worst = std::max(worst, units_off(log(t), std::log(static_cast<long double>(t))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(log(1.0), 0.0);
}

TEST(Elementary, ExponentialsAreTheLibrarys) {
  double worst = 0.0;
  for (double x = -760.0; x < 720.0; x += 0.0137) {
    worst = std::max(worst, units_off(exp(x), std::exp(static_cast<long double>(x))));
  }
  for (double x = 1e-300; x < 1.0; x *= 3.7) {
    worst = std::max(worst, units_off(exp(x), std::exp(static_cast<long double>(x))));
    worst = std::max(worst, units_off(exp(-x), std::exp(-static_cast<long double>(x))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(exp(0.0), 1.0);
  EXPECT_EQ(exp(-1e300), 0.0);
  EXPECT_EQ(exp(1e300), std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace nibble::math
