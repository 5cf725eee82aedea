// SPDX-License-Identifier: Apache-2.0
// Untrusted strings: is it UTF-8, and how it may stand in a message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nibble::formats {

// Position of the first byte that is not well-formed UTF-8 (no overlong forms, no surrogates,
// nothing above U+10FFFF), or npos.
std::size_t find_invalid_utf8(std::string_view text);
inline bool is_valid_utf8(std::string_view text) {
  return find_invalid_utf8(text) == std::string_view::npos;
}

// For error messages: control characters and broken UTF-8 as \xNN, cut after about 80 bytes.
std::string printable(std::string_view text);

}  // namespace nibble::formats
