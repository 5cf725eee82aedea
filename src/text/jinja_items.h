// SPDX-License-Identifier: Apache-2.0
// A Jinja template taken apart, to be compared with what a family of chat templates looks like.
// Nothing is evaluated.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

// Spelling that does not change the meaning is removed: blanks between words, kinds of quotes,
// message.role for message['role'], output split at + and ~, adjacent literals joined.
struct JinjaItem {
  enum class Kind { kLiteral, kOutput, kStatement };
  Kind kind;
  std::string content;  // a literal's text; else the words with one blank between them
};

// Rendering is as chat templates have it: trim_blocks and lstrip_blocks are on. nullopt, and the
// reason, for what goes beyond this reader.
std::optional<std::vector<JinjaItem>> jinja_items(std::string_view source, std::string* reason);

}  // namespace nibble::text
