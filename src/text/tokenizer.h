// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE from a GGUF's metadata (tokenizer.ggml.model "gpt2"). Pre-tokenizers: "smollm"
// (every \p{N} alone, then GPT-2's expression). Another model or pre-tokenizer is refused by name.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace nibble::text {

struct Token {
  std::int32_t id;
  std::uint32_t begin, end;  // bytes of the text it stands for
};

struct SpecialIds {  // -1: none
  std::int32_t bos, eos, unknown, pad;
  bool add_bos, add_eos;
};

class Tokenizer {
 public:
  // Copies what it needs; the file may be closed afterwards.
  explicit Tokenizer(const formats::GgufFile& file);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // `text` is valid UTF-8 or an Error(kInvalidArgument) names the offset. No BOS/EOS is added.
  // With parse_special, the text of a control token becomes that token. Bytes that the vocabulary
  // cannot express (SmolLM2 lacks 21) are left out and counted in *dropped_bytes, as llama.cpp
  // leaves them out. Thread-safe.
  std::vector<Token> encode(std::string_view text, bool parse_special,
                            std::uint64_t* dropped_bytes = nullptr) const;
  std::vector<std::int32_t> encode_ids(std::string_view text, bool parse_special) const;

  // The bytes of the tokens (may end inside a UTF-8 sequence). Control tokens give their text only
  // with `keep_special`. An id outside the vocabulary is an Error(kInvalidArgument).
  std::string decode(std::span<const std::int32_t> ids, bool keep_special) const;

  std::int32_t vocabulary_size() const;
  const SpecialIds& special() const;
  // Id of a token by its exact text; -1 if absent.
  std::int32_t find(std::string_view text) const;

 private:
  struct Data;
  std::unique_ptr<const Data> data_;
};

}  // namespace nibble::text
