// SPDX-License-Identifier: Apache-2.0
#include "text/special_tokens.h"

#include <algorithm>

namespace nibble::text {

SpecialTokens::SpecialTokens(std::vector<std::pair<std::string_view, std::int32_t>> tokens)
    : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end());
  for (const auto& [text, id] : tokens_) {
    first_bytes_.set(static_cast<unsigned char>(text[0]));
  }
}

// Length and id of the longest token with which `text` begins; length 0 if none. Narrows the sorted
// list byte by byte, so that the number of tokens costs only its logarithm.
std::pair<std::size_t, std::int32_t> SpecialTokens::longest_at(std::string_view text) const {
  auto low = tokens_.begin(), high = tokens_.end();
  std::pair<std::size_t, std::int32_t> best{0, -1};
  for (std::size_t depth = 0; low != high; ++depth) {
    // All in [low, high) share their first `depth` bytes; one that ends there sorts first.
    if (low->first.size() == depth) {
      best = {depth, low->second};
      ++low;
    }
    if (depth == text.size()) {
      break;
    }
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto at = [depth](const auto& token) {
      return static_cast<unsigned char>(token.first[depth]);
    };
    low = std::partition_point(low, high, [&](const auto& token) { return at(token) < byte; });
    high = std::partition_point(low, high, [&](const auto& token) { return at(token) == byte; });
  }
  return best;
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, std::size_t from) const {
  if (tokens_.empty()) {
    return {text.size(), text.size(), -1};
  }
  for (std::size_t i = from; i < text.size(); ++i) {
    if (first_bytes_[static_cast<unsigned char>(text[i])]) {
      const auto [length, id] = longest_at(text.substr(i));
      if (length > 0) {
        return {i, i + length, id};
      }
    }
  }
  return {text.size(), text.size(), -1};
}

}  // namespace nibble::text
