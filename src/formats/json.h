// SPDX-License-Identifier: Apache-2.0
// JSON from untrusted text: depth <= 64, duplicate keys rejected, UTF-8 checked, no NaN. Errors are
// Error(kCorrupt) naming `where` and the byte offset in the text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace nibble::formats {

using Json = nlohmann::ordered_json;

// Adds `base_offset` to the offsets in messages (a line of a JSONL file, a header in a file).
Json parse_json(std::string_view text, std::string_view where, std::uint64_t base_offset = 0);

}  // namespace nibble::formats
