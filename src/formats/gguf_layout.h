// SPDX-License-Identifier: Apache-2.0
// What the reader and the writer of GGUF agree on.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "formats/gguf.h"

namespace nibble::formats {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr std::uint32_t kGgufVersion = 3;
inline constexpr std::uint64_t kGgufDefaultAlignment = 32;
inline constexpr std::uint64_t kGgufMinAlignment = 8;
inline constexpr std::uint64_t kGgufMaxAlignment = 1 << 20;
inline constexpr std::string_view kGgufAlignmentKey = "general.alignment";
inline constexpr std::uint32_t kGgufMaxValueType = 12;

constexpr std::string_view gguf_value_type_name(GgufValueType type) {
  constexpr std::array<std::string_view, kGgufMaxValueType + 1> kNames = {
      "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
      "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::uint32_t>(type)];
}

// Bytes of a fixed-size value; 0 for strings and arrays.
constexpr std::uint64_t gguf_value_bytes(GgufValueType type) {
  constexpr std::array<std::uint64_t, kGgufMaxValueType + 1> kBytes = {1, 1, 2, 2, 4, 4, 4,
                                                                       1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<std::uint32_t>(type)];
}

// Rounds up. Positions lie inside a file, far from where the sum would wrap.
constexpr std::uint64_t gguf_align(std::uint64_t position, std::uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

}  // namespace nibble::formats
