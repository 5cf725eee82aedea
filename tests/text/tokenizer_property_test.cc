// SPDX-License-Identifier: Apache-2.0
// Splitting, merging and offsets on a small vocabulary, against straightforward implementations.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>

#include "support/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using test::tiny_tokenizer;
using test::tiny_vocabulary;
using test::TinyVocabulary;
using text::Token;
using text::Tokenizer;
using Ids = std::vector<std::int32_t>;

const Tokenizer& tiny() {
  static const Tokenizer instance = tiny_tokenizer();
  return instance;
}

// A code point of the test's alphabet and its class: Letter, Number, Space, Other.
const std::vector<std::pair<std::string, char>> kAlphabet = {
    {"a", 'L'}, {"b", 'L'},      {"h", 'L'},      {"e", 'L'},          {"l", 'L'},
    {"o", 'L'}, {"s", 'L'},      {"t", 'L'},      {"r", 'L'},          {"\u00e9", 'L'},
    {"w", 'L'}, {"\u4e2d", 'L'}, {"1", 'N'},      {"\u00b2", 'N'},     {"\u0664", 'N'},
    {" ", 'S'}, {" ", 'S'},      {"\n", 'S'},     {"\u00a0", 'S'},     {"\u0085", 'S'},
    {"'", 'O'}, {"!", 'O'},      {"\u180e", 'O'}, {"\U0001F600", 'O'}, {"\u0301", 'O'},
    {"<", 'O'}, {"\u3000", 'S'}, {"\x04", 'O'},   {"\u2028", 'S'},     {"\U00040000", 'O'}};

using Symbols = std::vector<std::pair<std::string, char>>;

rc::Gen<Symbols> symbols() {
  // Blanks and numbers side by side are where splitters differ: more of them.
  const Symbols close = {{" ", 'S'}, {"1", 'N'}, {"a", 'L'}, {"'", 'O'}, {"s", 'L'}};
  return rc::gen::container<Symbols>(
      rc::gen::oneOf(rc::gen::elementOf(kAlphabet), rc::gen::elementOf(close)));
}

std::string joined(const Symbols& list, std::size_t begin, std::size_t end) {
  std::string out;
  for (std::size_t i = begin; i < end; ++i) {
    out += list[i].first;
  }
  return out;
}

// GPT-2's expression on a text without numbers, by hand, alternative after alternative.
std::size_t gpt2_piece_end(const Symbols& s, std::size_t i) {
  const auto cls = [&](std::size_t k) { return k < s.size() ? s[k].second : '$'; };
  for (const std::string suffix : {"s", "t", "re", "ve", "m", "ll", "d"}) {
    if (s[i].first == "'" &&
        joined(s, i + 1, std::min(s.size(), i + 1 + suffix.size())) == suffix) {
      return i + 1 + suffix.size();
    }
  }
  const std::size_t after_blank = s[i].first == " " ? i + 1 : i;
  for (const char wanted : {'L', 'O'}) {
    std::size_t end = after_blank;
    while (cls(end) == wanted) {
      ++end;
    }
    if (end > after_blank) {
      return end;
    }
  }
  std::size_t end = i;
  while (cls(end) == 'S') {
    ++end;
  }
  return end == s.size() || end == i + 1 ? end : end - 1;
}

// "Sequence[Digits, ByteLevel]": numbers alone, the expression on what is between them.
std::vector<std::string> pieces_by_hand(const Symbols& text) {
  std::vector<std::string> pieces;
  Symbols segment;
  const auto flush = [&] {
    for (std::size_t i = 0; i < segment.size();) {
      const std::size_t end = gpt2_piece_end(segment, i);
      pieces.push_back(joined(segment, i, end));
      i = end;
    }
    segment.clear();
  };
  for (const auto& symbol : text) {
    if (symbol.second == 'N') {
      flush();
      pieces.push_back(symbol.first);
    } else {
      segment.push_back(symbol);
    }
  }
  flush();
  return pieces;
}

// Byte-pair encoding as its definition has it: look through all pairs, merge the best, again.
Ids bpe_by_hand(const TinyVocabulary& v, const std::string& piece) {
  std::map<std::string, std::int32_t> ids;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    ids[v.tokens[i]] = static_cast<std::int32_t>(i);
  }
  std::vector<std::string> parts;
  for (const char c : piece) {
    parts.push_back(test::gpt2_byte(static_cast<unsigned char>(c)));
  }
  for (;;) {
    std::size_t best = 0, best_rank = v.merges.size();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = std::find(v.merges.begin(), v.merges.end(), parts[i] + " " + parts[i + 1]);
      const auto rank = static_cast<std::size_t>(found - v.merges.begin());
      if (rank < best_rank) {
        best = i;
        best_rank = rank;
      }
    }
    if (best_rank == v.merges.size()) {
      break;
    }
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids result;
  for (const std::string& part : parts) {
    if (ids.count(part) != 0) {
      result.push_back(ids[part]);
    }
  }
  return result;
}

RC_GTEST_PROP(TokenizerProperty, EqualsTheDefinition, ()) {
  const Symbols list = *symbols();
  const TinyVocabulary v = tiny_vocabulary();
  Ids expected;
  for (const std::string& piece : pieces_by_hand(list)) {
    const Ids ids = bpe_by_hand(v, piece);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  RC_ASSERT(tiny().encode_ids(joined(list, 0, list.size()), false) == expected);
}

RC_GTEST_PROP(TokenizerProperty, OffsetsCoverTheTextAndDecodeGivesItBack, ()) {
  const Symbols list = *symbols();
  const std::string text = joined(list, 0, list.size());
  std::uint64_t dropped = 0;
  std::string kept;
  std::uint32_t end = 0;
  std::uint64_t holes = 0;
  Ids ids;
  for (const Token& token : tiny().encode(text, true, &dropped)) {
    RC_ASSERT(token.begin >= end);
    holes += token.begin - end;
    end = token.end;
    kept += text.substr(token.begin, token.end - token.begin);
    ids.push_back(token.id);
    const Ids one = {token.id};
    RC_ASSERT(tiny().decode(one, true) == text.substr(token.begin, token.end - token.begin));
  }
  holes += text.size() - end;
  RC_ASSERT(holes == dropped);
  RC_ASSERT(tiny().decode(ids, true) == kept);
}

}  // namespace
}  // namespace nibble
