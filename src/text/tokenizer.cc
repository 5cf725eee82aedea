// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <utility>

#include "core/status.h"
#include "formats/text_safety.h"
#include "text/special_tokens.h"
#include "text/splitter.h"
#include "text/vocabulary.h"

namespace nibble::text {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;  // offsets have 32 bits

SpecialTokens special_tokens(const Vocabulary& vocabulary) {
  std::vector<std::pair<std::string_view, std::int32_t>> tokens;
  for (std::size_t id = 0; id < vocabulary.texts.size(); ++id) {
    if (vocabulary.control(id) || vocabulary.user_defined(id)) {
      tokens.emplace_back(vocabulary.texts[id], static_cast<std::int32_t>(id));
    }
  }
  return SpecialTokens(std::move(tokens));
}

}  // namespace

struct Tokenizer::Data {
  explicit Data(const formats::GgufFile& file)
      : vocabulary(file),
        specials(special_tokens(vocabulary)),
        splitter(pretokenizer_expression(file.string("tokenizer.ggml.pre"))) {}

  Vocabulary vocabulary;
  SpecialTokens specials;
  Splitter splitter;
};

Tokenizer::Tokenizer(const formats::GgufFile& file) : data_(std::make_unique<Data>(file)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<Token> Tokenizer::encode(std::string_view text, bool parse_special,
                                     std::uint64_t* dropped_bytes) const {
  if (text.size() > kMaxTextBytes) {
    fail(StatusCode::kInvalidArgument, "tokenizer: a text of {} bytes (at most {})", text.size(),
         kMaxTextBytes);
  }
  if (const std::size_t offset = formats::find_invalid_utf8(text);
      offset != std::string_view::npos) {
    fail(StatusCode::kInvalidArgument, "tokenizer: the text is not UTF-8 at byte {}", offset);
  }
  std::vector<Token> tokens;
  std::uint64_t dropped = 0;
  BpeEncoder bpe(data_->vocabulary.merges, data_->vocabulary.byte_tokens);
  Splitter::Cursor cursor(data_->splitter);
  for (std::size_t position = 0; position < text.size();) {
    SpecialTokens::Match special{text.size(), text.size(), -1};
    if (parse_special) {
      special = data_->specials.find(text, position);
    }
    cursor.start(text.substr(position, special.begin - position));
    for (std::string_view piece = cursor.next(); !piece.empty(); piece = cursor.next()) {
      dropped += bpe.encode(piece, static_cast<std::uint32_t>(piece.data() - text.data()), &tokens);
    }
    if (special.id >= 0) {
      tokens.push_back({special.id, static_cast<std::uint32_t>(special.begin),
                        static_cast<std::uint32_t>(special.end)});
    }
    position = special.end;
  }
  if (dropped_bytes != nullptr) {
    *dropped_bytes += dropped;
  }
  return tokens;
}

std::vector<std::int32_t> Tokenizer::encode_ids(std::string_view text, bool parse_special) const {
  const std::vector<Token> tokens = encode(text, parse_special);
  std::vector<std::int32_t> ids(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    ids[i] = tokens[i].id;
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool keep_special) const {
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary_size()) {
      fail(StatusCode::kInvalidArgument,
           "decode: id {} at position {} is not in the vocabulary of "
           "{} tokens",
           ids[i], i, vocabulary_size());
    }
    const auto id = static_cast<std::size_t>(ids[i]);
    if (keep_special || !data_->vocabulary.control(id)) {
      text += data_->vocabulary.bytes[id];
    }
  }
  return text;
}

std::int32_t Tokenizer::vocabulary_size() const {
  return static_cast<std::int32_t>(data_->vocabulary.texts.size());
}

const SpecialIds& Tokenizer::special() const { return data_->vocabulary.special; }

std::int32_t Tokenizer::find(std::string_view text) const {
  const auto found = data_->vocabulary.ids.find(text);
  return found == data_->vocabulary.ids.end() ? -1 : found->second;
}

}  // namespace nibble::text
