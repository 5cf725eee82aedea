// SPDX-License-Identifier: Apache-2.0
// What a weight format tells about itself: how a parameter's weights are kept, and what beside
// them makes a step of low-precision weights lossless or unbiased. The formats are the rows of
// weights.def.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "math/bf16.h"
#include "math/host_device.h"
#include "math/philox.h"

namespace nibble::math {

// Where the step works on floats in place, without decoding.
enum class WeightsInPlace : std::int32_t { kNowhere, kWeights, kExtra };

// One block of one tensor, n <= kMaxBlock elements from its start.
struct WeightBlock {
  std::uint8_t* data;   // the caller's weights
  std::uint8_t* extra;  // the optimizer's own part, null if the format has none
  float* scale;         // the block's, null if the format has none
};

struct WeightInfo {
  std::int32_t id;  // persistent
  const char* name;
  const char* dtype;       // of the caller's weights
  int bits;                // of one of them
  const char* extra_name;  // the optimizer's own part as a state; null if there is none
  const char* extra_dtype;
  int extra_bits;
  bool has_scale;   // a float for each block, the caller's
  bool stochastic;  // rounding takes random bits
  WeightsInPlace in_place;
  void (*decode)(const WeightBlock& block, std::int64_t n, float* out);
  // x: the new weights; in place, those very floats. Element i has the random bits first + i.
  void (*encode)(const WeightBlock& block, const float* x, std::int64_t n,
                 const RandomStream& random, std::int64_t first);
  // Sets the optimizer's own part from weights as the caller gave them.
  void (*adopt)(const WeightBlock& block, std::int64_t n);
};

constexpr std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
constexpr float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
constexpr bool is_nan_bits(std::uint32_t bits) { return (bits & 0x7fffffffU) > 0x7f800000U; }

NIBBLE_HD inline bf16 load_bf16(const std::uint8_t* data, std::int64_t i) {
  bf16 out;
  std::memcpy(&out, data + 2 * i, sizeof(out));
  return out;
}
NIBBLE_HD inline void store_bf16(std::uint8_t* data, std::int64_t i, bf16 value) {
  std::memcpy(data + 2 * i, &value, sizeof(value));
}

}  // namespace nibble::math
