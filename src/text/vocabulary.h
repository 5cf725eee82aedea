// SPDX-License-Identifier: Apache-2.0
// The tokens and merges of a GGUF, checked. Internal to the tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/gguf.h"
#include "text/bpe.h"
#include "text/tokenizer.h"

namespace nibble::text {

struct Vocabulary {
  explicit Vocabulary(const formats::GgufFile& file);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  static constexpr std::uint64_t kMaxTokens = 4U << 20;
  static constexpr std::uint64_t kMaxMerges = 16U << 20;

  std::vector<std::string> texts;  // as the file spells them
  std::vector<std::string> bytes;  // what they stand for
  std::vector<std::uint8_t> types;
  std::unordered_map<std::string_view, std::int32_t> ids;  // views into texts
  std::array<std::int32_t, 256> byte_tokens;               // -1: the vocabulary lacks this byte
  MergeTable merges;
  SpecialIds special;

  bool control(std::size_t id) const { return types[id] == 3; }
  bool user_defined(std::size_t id) const { return types[id] == 4; }

 private:
  void read_tokens(const formats::GgufFile& file);
  void read_merges(const formats::GgufFile& file);
  void read_special(const formats::GgufFile& file);
};

}  // namespace nibble::text
