// SPDX-License-Identifier: Apache-2.0
// What a state format tells about itself: map, block, scale and byte layout. The formats are the
// rows of formats.def.
#pragma once

#include <cstdint>

namespace nibble::math {

inline constexpr std::int64_t kMinBlock = 32;
inline constexpr std::int64_t kMaxBlock = 4096;
inline constexpr std::int64_t kDefaultBlock = 256;

// How a value becomes a code.
enum class Rounding : std::int32_t {
  // Nearest code, and a positive value of an unsigned map never takes the zero code: a second
  // moment that becomes 0 while the first does not makes the next update explode.
  kSafe = 0,
  kNearest = 1,  // bitsandbytes' reference quantiser, to the bit
};

struct FormatInfo {
  std::int32_t id;  // persistent
  const char* name;
  const char* dtype;  // of the stored codes, as safetensors writes it
  bool block_wise;    // has a float absmax for every block
  std::int64_t (*packed_bytes)(std::int64_t n);
  // One block, n <= kMaxBlock elements. Block-wise formats only.
  void (*decode)(bool is_signed, const std::uint8_t* codes, float absmax, std::int64_t n,
                 float* out);
  void (*encode)(bool is_signed, const float* x, std::int64_t n, Rounding rounding,
                 std::uint8_t* codes, float* absmax);
  std::uint8_t (*zero_code)(bool is_signed);
};

constexpr std::int64_t block_count(std::int64_t n, std::int64_t block) {
  return n / block + (n % block != 0 ? 1 : 0);
}

}  // namespace nibble::math
