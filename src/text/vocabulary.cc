// SPDX-License-Identifier: Apache-2.0
#include "text/vocabulary.h"

#include <cstring>

#include "core/status.h"
#include "formats/text_safety.h"
#include "text/special_tokens.h"
#include "text/splitter.h"

namespace nibble::text {
namespace {

using formats::GgufArray;
using formats::GgufFile;
using formats::GgufValueType;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr std::int32_t kHighestType =
    6;  // normal 1, unknown 2, control 3, user 4, unused 5, byte 6

// The code point that begins at text[*position] of well-formed UTF-8; moves *position behind it.
char32_t next_code_point(std::string_view text, std::size_t* position) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[*position + i]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t code = length == 1 ? lead : lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    code = (code << 6) | (byte(i) & 0x3FU);
  }
  *position += length;
  return code;
}

// GPT-2's alphabet: every byte is written as a printable character; those that are not printable
// in Latin-1 follow from U+0100 on, in order.
struct ByteAlphabet {
  std::array<char32_t, 256> character;
  std::array<std::int16_t, 0x180> byte;  // -1: not in the alphabet

  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable =
          (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      character[static_cast<std::size_t>(b)] = c;
      byte[c] = static_cast<std::int16_t>(b);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

// What a token written in the alphabet stands for; a text with any other character stands for
// itself, as the peers' decoder has it (no merge can ever make such a token).
std::string token_bytes(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_code_point(text, &i);
    if (c >= alphabet().byte.size() || alphabet().byte[c] < 0) {
      return std::string(text);
    }
    bytes.push_back(static_cast<char>(alphabet().byte[c]));
  }
  return bytes;
}

std::string alphabet_text(int byte) {
  const char32_t c = alphabet().character[static_cast<std::size_t>(byte)];
  return c < 0x80 ? std::string(1, static_cast<char>(c))
                  : std::string{static_cast<char>(0xC0 | (c >> 6)),
                                static_cast<char>(0x80 | (c & 0x3F))};
}

void check_model(const GgufFile& file) {
  const std::string_view model = file.string("tokenizer.ggml.model");
  if (model != "gpt2") {
    fail(StatusCode::kUnsupported,
         "{}: tokenizer.ggml.model '{}' is not supported (supported: gpt2)", file.name(),
         formats::printable(model));
  }
  const std::string_view pre = file.string("tokenizer.ggml.pre");
  if (pretokenizer_expression(pre) == nullptr) {
    fail(StatusCode::kUnsupported, "{}: tokenizer.ggml.pre '{}' is not supported (supported: {})",
         file.name(), formats::printable(pre), pretokenizer_names());
  }
  if (file.boolean_or("tokenizer.ggml.add_space_prefix", false)) {
    fail(StatusCode::kUnsupported,
         "{}: tokenizer.ggml.add_space_prefix is not supported for model 'gpt2'", file.name());
  }
}

}  // namespace

Vocabulary::Vocabulary(const GgufFile& file)
    : merges((check_model(file), file.array(kMerges, GgufValueType::kString).count)) {
  read_tokens(file);
  read_merges(file);
  read_special(file);
}

void Vocabulary::read_tokens(const GgufFile& file) {
  const GgufArray& tokens = file.array(kTokens, GgufValueType::kString);
  const GgufArray& kinds = file.array(kTypes, GgufValueType::kI32);
  if (tokens.count == 0 || tokens.count > kMaxTokens) {
    fail(StatusCode::kCorrupt, "{}: {} has {} tokens (expected 1 to {})", file.name(), kTokens,
         tokens.count, kMaxTokens);
  }
  if (kinds.count != tokens.count) {
    fail(StatusCode::kCorrupt, "{}: {} has {} entries for {} tokens", file.name(), kTypes,
         kinds.count, tokens.count);
  }
  texts.reserve(tokens.count);
  bytes.reserve(tokens.count);
  types.reserve(tokens.count);
  ids.reserve(tokens.count);
  for (std::size_t id = 0; id < tokens.count; ++id) {
    const std::string_view text = tokens.strings[id];
    std::int32_t type = 0;
    std::memcpy(&type, kinds.bytes.data() + id * sizeof type, sizeof type);
    if (type < 0 || type > kHighestType) {
      fail(StatusCode::kCorrupt, "{}: {}: token {} has type {} (expected 0 to {})", file.name(),
           kTypes, id, type, kHighestType);
    }
    if (text.empty()) {
      fail(StatusCode::kCorrupt, "{}: {}: token {} is empty", file.name(), kTokens, id);
    }
    if (const std::size_t offset = formats::find_invalid_utf8(text);
        offset != std::string_view::npos) {
      fail(StatusCode::kCorrupt, "{}: {}: token {} is not UTF-8 at its byte {}", file.name(),
           kTokens, id, offset);
    }
    types.push_back(static_cast<std::uint8_t>(type));
    if ((control(id) || user_defined(id)) && text.size() > SpecialTokens::kMaxBytes) {
      fail(StatusCode::kUnsupported, "{}: {}: special token {} has {} bytes (at most {})",
           file.name(), kTokens, id, text.size(), SpecialTokens::kMaxBytes);
    }
    texts.emplace_back(text);
    const auto [entry, fresh] = ids.try_emplace(texts.back(), static_cast<std::int32_t>(id));
    if (!fresh) {
      fail(StatusCode::kCorrupt, "{}: {}: tokens {} and {} are both '{}'", file.name(), kTokens,
           entry->second, id, formats::printable(text));
    }
    bytes.push_back(type == 1 ? token_bytes(text) : std::string(text));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(alphabet_text(byte));
    // A control token never stands for a byte of the text, whatever it is called.
    const bool usable = found != ids.end() && types[static_cast<std::size_t>(found->second)] == 1;
    byte_tokens[static_cast<std::size_t>(byte)] = usable ? found->second : -1;
  }
}

void Vocabulary::read_merges(const GgufFile& file) {
  const GgufArray& lines = file.array(kMerges, GgufValueType::kString);
  if (lines.count > kMaxMerges) {
    fail(StatusCode::kCorrupt, "{}: {} has {} merges (at most {})", file.name(), kMerges,
         lines.count, kMaxMerges);
  }
  const auto id_of = [&](std::size_t rank, std::string_view text) {
    const auto found = ids.find(text);
    if (found == ids.end() || types[static_cast<std::size_t>(found->second)] != 1) {
      fail(StatusCode::kCorrupt, "{}: {}: merge {} '{}' needs the normal token '{}'{}", file.name(),
           kMerges, rank, formats::printable(lines.strings[rank]), formats::printable(text),
           found == ids.end() ? ", which is not in the vocabulary" : ", which has another type");
    }
    return found->second;
  };
  for (std::size_t rank = 0; rank < lines.count; ++rank) {
    const std::string_view line = lines.strings[rank];
    const std::size_t space = line.find(' ');
    if (!formats::is_valid_utf8(line) || space == 0 || space == std::string_view::npos ||
        space + 1 == line.size() || line.find(' ', space + 1) != std::string_view::npos) {
      fail(StatusCode::kCorrupt, "{}: {}: merge {} is not two tokens with a blank between them",
           file.name(), kMerges, rank);
    }
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    const std::int32_t result = id_of(rank, std::string(left).append(right));
    if (!merges.insert(id_of(rank, left), id_of(rank, right),
                       {static_cast<std::uint32_t>(rank), result})) {
      fail(StatusCode::kCorrupt, "{}: {}: merge {} '{}' was there before", file.name(), kMerges,
           rank, formats::printable(line));
    }
  }
}

void Vocabulary::read_special(const GgufFile& file) {
  const auto id = [&](const std::string& name) -> std::int32_t {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    if (!file.has(key)) {
      return -1;
    }
    const std::uint32_t value = file.u32(key);
    if (value >= texts.size()) {
      fail(StatusCode::kCorrupt, "{}: {} is {}, but there are {} tokens", file.name(), key, value,
           texts.size());
    }
    return static_cast<std::int32_t>(value);
  };
  special.bos = id("bos");
  special.eos = id("eos");
  special.unknown = id("unknown");
  special.pad = id("padding");
  special.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", false);
  special.add_eos = file.boolean_or("tokenizer.ggml.add_eos_token", false);
  if ((special.add_bos && special.bos < 0) || (special.add_eos && special.eos < 0)) {
    const char* missing = special.add_bos && special.bos < 0 ? "bos" : "eos";
    fail(StatusCode::kCorrupt, "{}: tokenizer.ggml.add_{}_token is set without {}_token_id",
         file.name(), missing, missing);
  }
}

}  // namespace nibble::text
