// SPDX-License-Identifier: Apache-2.0
// What a state format tells about itself: map, block, scale and byte layout. The formats are the
// rows of formats.def.
#pragma once

#include <cstdint>

namespace nibble::math {

inline constexpr std::int64_t kMinBlock = 32;
inline constexpr std::int64_t kMaxBlock = 4096;

// How a value becomes a code (README.md of src/math, "Modes").
enum class Rounding : std::int32_t {
  // Nearest, and a positive value of an unsigned map never takes the zero code: a second moment
  // that becomes 0 while the first does not makes the next update explode. Blocks with infinities
  // saturate, NaN becomes 0.
  kSafe = 0,
  kNearest = 1,  // bitsandbytes' reference quantiser: ties to the lower value
  kTorchao = 2,  // torchao: x / max(absmax, 1e-12), ties to the upper value
  kBnbCuda = 3,  // bitsandbytes on CUDA: x / absmax, ties to the even code, sign fix
};

// What a format's codes are multiplied by.
enum class Scale : std::int32_t {
  kNone = 0,   // the codes say all
  kBlock = 1,  // a float for each block of elements
  kRank1 = 2,  // for a matrix: min(row's float, column's float)
};

struct FormatInfo {
  std::int32_t id;  // persistent
  const char* name;
  const char* dtype;  // of the stored codes, as safetensors writes it
  bool quantised;     // codes of a map; else plain numbers
  bool for_states;    // else only for nibble_quantize
  Scale signed_scale, unsigned_scale;
  std::int64_t default_block;
  int bits;                                   // of an element
  std::uint8_t (*zero_byte)(bool is_signed);  // fills states that are zero
  // One block, n <= kMaxBlock elements; the scale is read and written through a pointer that is
  // null for Scale::kNone. Not for fp32, which is worked on in place, nor for kRank1.
  void (*decode)(bool is_signed, const std::uint8_t* codes, const float* scale, std::int64_t n,
                 float* out);
  void (*encode)(bool is_signed, const float* x, std::int64_t n, Rounding rounding,
                 std::uint8_t* codes, float* scale);

  constexpr Scale scale(bool is_signed) const { return is_signed ? signed_scale : unsigned_scale; }
  // Of n elements from a block's start.
  constexpr std::int64_t packed_bytes(std::int64_t n) const {
    return bits >= 8 ? n * (bits / 8) : n / 2 + n % 2;
  }
};

constexpr std::int64_t block_count(std::int64_t n, std::int64_t block) {
  return n / block + (n % block != 0 ? 1 : 0);
}

}  // namespace nibble::math
