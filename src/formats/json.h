// SPDX-License-Identifier: Apache-2.0
// JSON from untrusted text: depth <= 64, duplicate keys rejected, UTF-8 checked, no NaN. Errors are
// Error(kCorrupt) naming `where` and the byte offset in the text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

// The library's own flattens the value into a vector first, lest deep values overflow the stack; in
// a destructor with no memory left that ends the process. Ours are at most 64 deep: recursion does.
template <>
inline void nlohmann::ordered_json::json_value::destroy(nlohmann::detail::value_t type) {
  switch (type) {
    case nlohmann::detail::value_t::object:
      delete object;
      break;
    case nlohmann::detail::value_t::array:
      delete array;
      break;
    case nlohmann::detail::value_t::string:
      delete string;
      break;
    case nlohmann::detail::value_t::binary:
      delete binary;
      break;
    default:
      break;
  }
}

namespace nibble::formats {

using Json = nlohmann::ordered_json;

// Adds `base_offset` to the offsets in messages (a line of a JSONL file, a header in a file).
Json parse_json(std::string_view text, std::string_view where, std::uint64_t base_offset = 0);

}  // namespace nibble::formats
