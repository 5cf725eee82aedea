// SPDX-License-Identifier: Apache-2.0
// First byte 0: the rest is text for a small vocabulary; offsets must be in order and decoding must
// give the text back, less the dropped bytes. Otherwise: the rest is a GGUF whose metadata the
// tokenizer and the chat template read.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "core/status.h"
#include "support/tiny_tokenizer.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace {

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void encode(const nibble::text::Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    std::uint64_t dropped = 0;
    std::string kept;
    std::uint32_t end = 0;
    std::uint64_t holes = 0;
    std::vector<std::int32_t> ids;
    for (const auto& token : tokenizer.encode(text, special, &dropped)) {
      require(token.begin >= end && token.end > token.begin && token.end <= text.size());
      require(token.id >= 0 && token.id < tokenizer.vocabulary_size());
      holes += token.begin - end;
      end = token.end;
      kept.append(text.substr(token.begin, token.end - token.begin));
      ids.push_back(token.id);
    }
    require(holes + text.size() - end == dropped);
    require(tokenizer.decode(ids, true) == kept);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  static const nibble::text::Tokenizer tiny = nibble::test::tiny_tokenizer();
  const std::span<const std::uint8_t> rest(data + 1, size - 1);
  try {
    if (data[0] == 0) {
      encode(tiny, {reinterpret_cast<const char*>(rest.data()), rest.size()});
      return 0;
    }
    const nibble::formats::GgufFile file(std::as_bytes(rest), "fuzz");
    const nibble::text::Tokenizer tokenizer(file);
    encode(tokenizer, "Hello, it's 12 <|im_start|>\n\n  worlds \xC3\xA9\xF0\x9F\x98\x80<keep>er");
    const auto jinja = file.string_or("tokenizer.chat_template", "");
    (void)nibble::text::ChatTemplate::recognise(jinja);
  } catch (const nibble::Error& error) {
    require(*error.what() != '\0');
  }
  return 0;
}
