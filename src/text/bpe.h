// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one piece of text: of all adjacent pairs the one with the lowest rank is
// merged, the leftmost first, until no pair has a merge. O(n log n) in the length of the piece.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace nibble::text {

// (left id, right id) -> rank and id of the result. Open addressing: a look-up is what encoding
// does most.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank;
    std::int32_t result;
  };

  explicit MergeTable(std::size_t capacity);
  // False if the pair is there already.
  bool insert(std::int32_t left, std::int32_t right, Merge merge);
  // nullptr if there is none, or if an id is negative.
  const Merge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t pair;
    Merge merge;
  };
  std::size_t slot_of(std::uint64_t pair) const;
  std::vector<Slot> slots_;
};

// Working memory of the merging, kept from piece to piece.
class BpeEncoder {
 public:
  // byte_tokens[b] is the id of byte b, -1 if it has none. No merge reaches across such a byte.
  BpeEncoder(const MergeTable& merges, const std::array<std::int32_t, 256>& byte_tokens)
      : merges_(merges), byte_tokens_(byte_tokens) {}

  // Appends the tokens of `piece`, which begins at byte `base` of the text. Returns how many bytes
  // had no token.
  std::uint64_t encode(std::string_view piece, std::uint32_t base, std::vector<Token>* out);

 private:
  struct Node {  // begins at the byte that is its index, ends where the next one begins
    std::int32_t id;
    std::uint32_t previous, next;
  };
  bool push(std::uint32_t left);

  const MergeTable& merges_;
  const std::array<std::int32_t, 256>& byte_tokens_;
  std::vector<Node> nodes_;
  std::vector<std::uint64_t> heap_;  // rank << 32 | index of the left node
};

}  // namespace nibble::text
