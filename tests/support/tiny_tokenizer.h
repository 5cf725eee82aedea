// SPDX-License-Identifier: Apache-2.0
// A small byte-level BPE vocabulary in a GGUF of its own, for tests that need no real model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "support/paths.h"
#include "text/tokenizer.h"

namespace nibble::test {

// What will stand in the file; a test changes what it wants to see refused.
struct TinyVocabulary {
  std::string model = "gpt2", pre = "smollm";
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<std::string> merges;
  std::optional<std::uint32_t> bos = 1, eos = 2, unknown = 0, pad = 2;  // pad == eos, as SmolLM2
  std::optional<bool> add_bos = false;
  std::optional<bool> add_eos, add_space_prefix;
};

// The way GPT-2 writes a byte.
inline std::string gpt2_byte(int byte) {
  int code = byte;
  if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
    code = byte < 33 ? 256 + byte : byte < 161 ? 256 + 33 + byte - 127 : 256 + 67;
  }
  if (code < 0x80) {
    return {static_cast<char>(code)};
  }
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// ids: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|> (control), 3 <keep> and 4 <keep>er (user
// defined), then all bytes but 0x04 and 0xF1, then what the merges make.
inline TinyVocabulary tiny_vocabulary() {
  TinyVocabulary v;
  v.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<keep>", "<keep>er"};
  v.types = {3, 3, 3, 4, 4};
  for (int byte = 0; byte < 256; ++byte) {
    if (byte != 0x04 && byte != 0xF1) {
      v.tokens.push_back(gpt2_byte(byte));
      v.types.push_back(1);
    }
  }
  const std::string blank = gpt2_byte(' ');
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"h", "e"},           {"l", "l"},   {"he", "ll"},
      {"hell", "o"},        {blank, "w"}, {"o", "r"},
      {blank + "w", "or"},  {"l", "d"},   {"a", "a"},
      {"aa", "aa"},         {"a", "b"},   {"b", "a"},
      {blank, blank},       {"aa", "b"},  {"\xC3\xA2", "\xC4\xA4"},
      {blank + "wor", "ld"}};
  for (const auto& [left, right] : pairs) {
    v.merges.push_back(left + " " + right);
    v.tokens.push_back(left + right);
    v.types.push_back(1);
  }
  return v;
}

inline void write_tiny_gguf(const std::filesystem::path& path, const TinyVocabulary& v) {
  formats::GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  writer.add_string("tokenizer.ggml.model", v.model);
  writer.add_string("tokenizer.ggml.pre", v.pre);
  writer.add_string_array("tokenizer.ggml.tokens", v.tokens);
  writer.add_i32_array("tokenizer.ggml.token_type", v.types);
  writer.add_string_array("tokenizer.ggml.merges", v.merges);
  const auto id = [&](const char* key, const std::optional<std::uint32_t>& value) {
    if (value) {
      writer.add_u32(key, *value);
    }
  };
  const auto flag = [&](const char* key, const std::optional<bool>& value) {
    if (value) {
      writer.add_bool(key, *value);
    }
  };
  id("tokenizer.ggml.bos_token_id", v.bos);
  id("tokenizer.ggml.eos_token_id", v.eos);
  id("tokenizer.ggml.unknown_token_id", v.unknown);
  id("tokenizer.ggml.padding_token_id", v.pad);
  flag("tokenizer.ggml.add_bos_token", v.add_bos);
  flag("tokenizer.ggml.add_eos_token", v.add_eos);
  flag("tokenizer.ggml.add_space_prefix", v.add_space_prefix);
  writer.write(path);
}

inline text::Tokenizer tiny_tokenizer(const TinyVocabulary& v = tiny_vocabulary()) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "tiny.gguf";
  write_tiny_gguf(path, v);
  return text::Tokenizer(formats::GgufFile(path));
}

}  // namespace nibble::test
