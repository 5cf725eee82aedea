// SPDX-License-Identifier: Apache-2.0
// The tokenizer on a small vocabulary: special tokens, missing bytes, long texts, refused metadata.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "support/error_of.h"
#include "support/tiny_tokenizer.h"

namespace nibble {
namespace {

using test::error_of;
using test::mentions;
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

TEST(Tokenizer, MergesByRankNotByPosition) {
  const auto id = [](const std::string& text) { return tiny().find(text); };
  EXPECT_EQ(tiny().encode_ids("hello", false), Ids({id("hello")}));
  EXPECT_EQ(tiny().encode_ids(" world", false), Ids({id("\u0120world")}));
  // "a a" has a lower rank than "a b" and "b a": aab = aa b, then the merge "aa b".
  EXPECT_EQ(tiny().encode_ids("aab", false), Ids({id("aab")}));
  EXPECT_EQ(tiny().encode_ids("aba", false), Ids({id("ab"), id("a")}));
  EXPECT_EQ(tiny().encode_ids("aaaaa", false), Ids({id("aaaa"), id("a")}));
}

TEST(Tokenizer, BlanksBeforeNumbersStayTogether) {
  const std::int32_t blank = tiny().find("\u0120"), two = tiny().find("\u0120\u0120");
  EXPECT_EQ(tiny().encode_ids("  1", false), Ids({two, tiny().find("1")}));
  EXPECT_EQ(tiny().encode_ids("  b", false), Ids({blank, blank, tiny().find("b")}));
  EXPECT_EQ(tiny().encode_ids(" 1", false), Ids({blank, tiny().find("1")}));
  EXPECT_EQ(tiny().encode_ids("  ", false), Ids({two}));
}

TEST(Tokenizer, SpecialTokensLeftmostLongestAndOnlyWhenAsked) {
  const std::string text = "<keep>er<|im_end|><keep>x<|im_end";
  const std::vector<Token> tokens = tiny().encode(text, true);
  ASSERT_GE(tokens.size(), 3U);
  EXPECT_EQ(tokens[0].id, 4);
  EXPECT_EQ(tokens[1].id, 2);
  EXPECT_EQ(tokens[1].begin, 8U);
  EXPECT_EQ(tokens[1].end, 18U);
  EXPECT_EQ(tokens[2].id, 3);
  EXPECT_EQ(tokens.size(), 3U + 1 + 8);  // the unfinished marker is text
  for (const Token& token : tiny().encode(text, false)) {
    EXPECT_GT(token.id, 4);
  }
}

TEST(Tokenizer, DecodeShowsControlTokensOnlyWhenAsked) {
  const Ids ids = {1, tiny().find("hello"), 3, 2};
  EXPECT_EQ(tiny().decode(ids, true), "<|im_start|>hello<keep><|im_end|>");
  EXPECT_EQ(tiny().decode(ids, false), "hello<keep>");
  for (const std::int32_t bad : {-1, tiny().vocabulary_size()}) {
    const Ids wrong = {5, bad};
    const Error error = error_of([&] { (void)tiny().decode(wrong, true); });
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_TRUE(mentions(error, "position 1")) << error.what();
  }
}

TEST(Tokenizer, MissingBytesAreDroppedCountedAndBlockMerges) {
  std::uint64_t dropped = 0;
  const std::vector<Token> tokens = tiny().encode(
      "a\x04"
      "b",
      false, &dropped);
  EXPECT_EQ(dropped, 1U);
  ASSERT_EQ(tokens.size(), 2U);  // not "ab"
  EXPECT_EQ(tokens[0].id, tiny().find("a"));
  EXPECT_EQ(tokens[1].id, tiny().find("b"));
  EXPECT_EQ(tokens[1].begin, 2U);
  tiny().encode("\U00040000", false, &dropped);  // F1 80 80 80
  EXPECT_EQ(dropped, 2U);
}

TEST(Tokenizer, InvalidUtf8IsRefusedWithItsOffset) {
  for (const std::string bad :
       {"abc\xFF", "abc\xC0\x80", "abc\xED\xA0\x80", "abc\xE4\xB8", "abc\xF4\x90\x80\x80"}) {
    const Error error = error_of([&] { tiny().encode(bad, true); });
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_TRUE(mentions(error, "byte 3")) << error.what();
  }
}

TEST(Tokenizer, LongTextsStayFast) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(tiny().encode_ids(std::string(4 << 20, 'a'), true).size(), std::size_t{1} << 20);
  EXPECT_EQ(tiny().encode_ids(std::string(1'000'000, ' ') + "x", true).size(), 500'002U);
  EXPECT_EQ(tiny().encode_ids(std::string(1'000'000, '7'), true).size(), 1'000'000U);
  std::string markers;
  for (int i = 0; i < 100'000; ++i) {
    markers += "<|im_start|";
  }
  EXPECT_GT(tiny().encode_ids(markers, true).size(), 100'000U);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 60) << "a quadratic algorithm would take hours";
}

TEST(Tokenizer, ThreadsGiveWhatOneThreadGives) {
  std::string text;
  for (int i = 0; i < 2000; ++i) {
    text += " hello world " + std::to_string(i) + " aabab<|im_end|>";
  }
  const Ids expected = tiny().encode_ids(text, true);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&] { result = tiny().encode_ids(text, true); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Ids& result : results) {
    EXPECT_EQ(result, expected);
  }
}

TEST(Tokenizer, SpecialIdsAndFlags) {
  EXPECT_EQ(tiny().special().bos, 1);
  EXPECT_EQ(tiny().special().eos, 2);
  EXPECT_EQ(tiny().special().pad, 2);
  EXPECT_FALSE(tiny().special().add_bos);
  TinyVocabulary v = tiny_vocabulary();
  v.bos.reset();
  v.pad.reset();
  v.add_bos.reset();
  v.add_eos = true;
  const Tokenizer other = tiny_tokenizer(v);
  EXPECT_EQ(other.special().bos, -1);
  EXPECT_EQ(other.special().pad, -1);
  EXPECT_TRUE(other.special().add_eos);
}

struct Refusal {
  const char* name;
  std::function<void(TinyVocabulary*)> change;
  StatusCode code;
  const char* part;  // of the message
};

TEST(Tokenizer, RefusesWrongMetadata) {
  const StatusCode corrupt = StatusCode::kCorrupt, unsupported = StatusCode::kUnsupported;
  const std::vector<Refusal> refusals = {
      {"model", [](auto* v) { v->model = "llama"; }, unsupported, "'llama'"},
      {"pre", [](auto* v) { v->pre = "qwen2"; }, unsupported, "'qwen2'"},
      {"prefix", [](auto* v) { v->add_space_prefix = true; }, unsupported, "add_space_prefix"},
      {"no tokens", [](auto* v) { v->tokens.clear(); }, corrupt, "0 tokens"},
      {"types", [](auto* v) { v->types.pop_back(); }, corrupt, "token_type"},
      {"type", [](auto* v) { v->types[7] = 7; }, corrupt, "token 7 has type 7"},
      {"type < 0", [](auto* v) { v->types[7] = -1; }, corrupt, "token 7 has type -1"},
      {"empty token", [](auto* v) { v->tokens[9] = ""; }, corrupt, "token 9 is empty"},
      {"duplicate", [](auto* v) { v->tokens[9] = v->tokens[8]; }, corrupt, "tokens 8 and 9"},
      {"long special", [](auto* v) { v->tokens[0] = std::string(513, 'x'); }, unsupported,
       "513 bytes"},
      {"merge of one", [](auto* v) { v->merges[2] = "he"; }, corrupt, "merge 2"},
      {"merge of three", [](auto* v) { v->merges[2] = "h e l"; }, corrupt, "merge 2"},
      {"empty side", [](auto* v) { v->merges[2] = "h "; }, corrupt, "merge 2"},
      {"unknown side", [](auto* v) { v->merges[2] = "zz h"; }, corrupt, "merge 2"},
      {"unknown result", [](auto* v) { v->merges[2] = "h h"; }, corrupt, "'hh'"},
      {"repeated merge", [](auto* v) { v->merges[2] = v->merges[1]; }, corrupt, "there before"},
      {"merge to control", [](auto* v) { v->types.back() = 3; }, corrupt, "another type"},
      {"bos", [](auto* v) { v->bos = 100'000; }, corrupt, "bos_token_id is 100000"},
      {"eos", [](auto* v) { v->eos = 0xFFFFFFFFU; }, corrupt, "eos_token_id"},
      {"pad", [](auto* v) { v->pad = 100'000; }, corrupt, "padding_token_id"},
      {"add_bos", [](auto* v) { v->add_bos = true, v->bos.reset(); }, corrupt, "bos_token_id"},
      {"add_eos", [](auto* v) { v->add_eos = true, v->eos.reset(); }, corrupt, "eos_token_id"},
  };
  for (const Refusal& refusal : refusals) {
    TinyVocabulary v = tiny_vocabulary();
    refusal.change(&v);
    const Error error = error_of([&] { tiny_tokenizer(v); });
    EXPECT_EQ(error.code(), refusal.code) << refusal.name << ": " << error.what();
    EXPECT_TRUE(mentions(error, refusal.part)) << refusal.name << ": " << error.what();
    EXPECT_TRUE(mentions(error, "tiny.gguf")) << error.what();
  }
}

}  // namespace
}  // namespace nibble
