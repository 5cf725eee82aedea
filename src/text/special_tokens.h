// SPDX-License-Identifier: Apache-2.0
// Finds the texts of special tokens in a text: the leftmost, and there the longest.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::text {

class SpecialTokens {
 public:
  // Longer texts are refused by the loader: the search looks at that many bytes at most for each
  // byte of the text.
  static constexpr std::size_t kMaxBytes = 512;

  // The texts outlive the object, are distinct and not empty.
  explicit SpecialTokens(std::vector<std::pair<std::string_view, std::int32_t>> tokens = {});

  struct Match {
    std::size_t begin, end;  // begin == text.size(): none
    std::int32_t id;
  };
  Match find(std::string_view text, std::size_t from) const;

 private:
  std::pair<std::size_t, std::int32_t> longest_at(std::string_view text) const;

  std::vector<std::pair<std::string_view, std::int32_t>> tokens_;  // sorted
  std::bitset<256> first_bytes_;
};

}  // namespace nibble::text
