// SPDX-License-Identifier: Apache-2.0
// All state formats: the table and the types.
#pragma once

#include <string_view>

#include "nibble_format_files.inc"  // NOLINT: generated from formats.def

namespace nibble::math {

template <class Format>
constexpr FormatInfo format_info(std::int32_t id, const char* name) {
  return {id,
          name,
          Format::kDtype,
          Format::kQuantised,
          Format::kForStates,
          Format::kSignedScale,
          Format::kUnsignedScale,
          Format::kDefaultBlock,
          Format::kBits,
          &Format::zero_byte,
          Format::decode,
          Format::encode};
}

inline constexpr FormatInfo kFormats[] = {
#define NIBBLE_FORMAT(id, name, Type) format_info<Type>(id, #name),
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
};

inline constexpr int kFormatCount = static_cast<int>(sizeof(kFormats) / sizeof(kFormats[0]));

// Index in kFormats; -1 if there is none of that name.
inline int find_format(std::string_view name) {
  for (int i = 0; i < kFormatCount; ++i) {
    if (name == kFormats[i].name) {
      return i;
    }
  }
  return -1;
}

}  // namespace nibble::math
