// SPDX-License-Identifier: Apache-2.0
// Rows to sequences: formats, masks, EOS, BOS, truncation, counts.
#include "text/dataset.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "core/parallel.h"
#include "formats/json.h"
#include "support/tiny_tokenizer.h"

namespace nibble {
namespace {

using formats::Json;
using test::tiny_tokenizer;
using test::TinyVocabulary;
using text::ChatTemplate;
using text::Dataset;
using text::DatasetOptions;
using text::Example;
using text::Tokenizer;

const Tokenizer& tiny() {
  static const Tokenizer instance = tiny_tokenizer();
  return instance;
}

Dataset parse(const std::string& content, const DatasetOptions& options = {},
              const Tokenizer& tokenizer = tiny()) {
  return text::parse_dataset(content, "data.jsonl", tokenizer, ChatTemplate::family("chatml"),
                             options);
}

// The text of the tokens that are targets; "|" between runs of them.
std::string target_text(const Example& example, const Tokenizer& tokenizer = tiny()) {
  std::string text;
  for (std::size_t i = 0; i < example.ids.size(); ++i) {
    if (example.is_target[i] != 0) {
      text += i > 0 && example.is_target[i - 1] == 0 && !text.empty() ? "|" : "";
      text += tokenizer.decode({&example.ids[i], 1}, true);
    }
  }
  return text;
}

std::string all_text(const Example& example) { return tiny().decode(example.ids, true); }

TEST(Dataset, Messages) {
  const Dataset data = parse(
      R"({"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"world 12"}]})"
      "\n");
  ASSERT_EQ(data.examples.size(), 1U);
  EXPECT_EQ(all_text(data.examples[0]),
            "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nworld 12<|im_end|>\n");
  EXPECT_EQ(target_text(data.examples[0]), "world 12<|im_end|>");
  EXPECT_EQ(data.report.format, "messages");
  EXPECT_EQ(data.report.rows, 1);
  EXPECT_EQ(data.report.usable, 1);
  EXPECT_EQ(data.report.tokens, static_cast<std::int64_t>(data.examples[0].ids.size()));
  EXPECT_EQ(data.report.targets, data.examples[0].targets());
}

TEST(Dataset, TurnsCanBeLeftOutOfTheLoss) {
  const Dataset data = parse(
      R"({"messages":[{"role":"assistant","content":"one","train":false},)"
      R"({"role":"user","content":"u","train":false},{"role":"assistant","content":"two"},)"
      R"({"role":"tool","content":"t"},{"role":"assistant","content":"three","train":true}]})");
  EXPECT_EQ(target_text(data.examples.at(0)), "two<|im_end|>|three<|im_end|>");
  // OpenAI's way to say the same; null tools are those of a data set's export.
  const Dataset weighted =
      parse(R"({"tools":null,"messages":[{"role":"assistant","content":"one","weight":0},)"
            R"({"role":"user","content":"u","weight":0},)"
            R"({"role":"assistant","content":"two","tool_calls":null},)"
            R"({"role":"tool","content":"t"},{"role":"assistant","content":"three","weight":1}]})");
  EXPECT_EQ(weighted.examples.at(0).ids, data.examples.at(0).ids);
  EXPECT_EQ(weighted.examples.at(0).is_target, data.examples.at(0).is_target);
}

TEST(Dataset, TrainOnInputsTakesAllButTheFirstToken) {
  DatasetOptions options;
  options.train_on_inputs = true;
  const Dataset data =
      parse(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})",
            options);
  const Example& example = data.examples.at(0);
  EXPECT_EQ(example.targets(), static_cast<std::int64_t>(example.ids.size()) - 1);
  EXPECT_EQ(example.is_target[0], 0);
  const Dataset pair = parse(R"({"prompt":"ab","completion":"c"})", options);
  EXPECT_EQ(pair.examples.at(0).targets(),
            static_cast<std::int64_t>(pair.examples.at(0).ids.size()) - 1);
}

TEST(Dataset, PromptAndCompletionEndWithEosThoughPadIsEos) {
  ASSERT_EQ(tiny().special().pad, tiny().special().eos);
  const Dataset data = parse(R"({"prompt":"hello","completion":" world"})");
  EXPECT_EQ(all_text(data.examples.at(0)), "hello world<|im_end|>");
  EXPECT_EQ(target_text(data.examples.at(0)), " world<|im_end|>");
  EXPECT_EQ(data.report.format, "prompt/completion");
}

TEST(Dataset, ATokenAcrossTheBeginningOfTheCompletionIsPrompt) {
  // "b hell" + "o w" is encoded as one text: "hello" is one token and stays prompt.
  const Dataset data = parse(R"({"prompt":"b hell","completion":"o w"})");
  EXPECT_EQ(target_text(data.examples.at(0)), " w<|im_end|>");
}

TEST(Dataset, TextAndEosOnlyOnce) {
  const Dataset data = parse("{\"text\":\"hello\"}\n{\"text\":\"hello<|im_end|>\"}\n");
  EXPECT_EQ(data.examples.at(0).ids, data.examples.at(1).ids);
  EXPECT_EQ(all_text(data.examples[0]), "hello<|im_end|>");
  EXPECT_EQ(target_text(data.examples[0]), "<|im_end|>");  // the first token has nothing before it
}

TEST(Dataset, InputIds) {
  const Dataset data =
      parse(R"({"input_ids":[5,6,7,2],"labels":[-100,-100,7,2],"attention_mask":[1,1,1,1]})");
  EXPECT_EQ(data.examples.at(0).ids, (std::vector<std::int32_t>{5, 6, 7, 2}));
  EXPECT_EQ(data.examples.at(0).is_target, (std::vector<std::uint8_t>{0, 0, 1, 1}));
  EXPECT_EQ(data.report.format, "input_ids");
}

TEST(Dataset, BosOnceWhereTheModelAsksForIt) {
  TinyVocabulary v = test::tiny_vocabulary();
  v.bos = 0;
  v.add_bos = true;
  const Tokenizer with_bos = tiny_tokenizer(v);
  const Dataset data = parse(
      "{\"prompt\":\"a\",\"completion\":\"b\"}\n"
      "{\"prompt\":\"<|endoftext|>a\",\"completion\":\"b\"}\n",
      {}, with_bos);
  EXPECT_EQ(data.examples.at(0).ids, data.examples.at(1).ids);
  EXPECT_EQ(data.examples[0].ids[0], 0);
  EXPECT_NE(data.examples[0].ids[1], 0);
  EXPECT_EQ(data.report.double_bos, 1);
  // Without the flag none is added: ChatML's first marker is the BOS of this vocabulary.
  const Dataset chat = parse(R"({"messages":[{"role":"assistant","content":"x"}]})");
  EXPECT_EQ(chat.report.double_bos, 0);
  EXPECT_EQ(chat.examples.at(0).ids[0], 1);
  EXPECT_NE(chat.examples.at(0).ids[1], 1);
}

TEST(Dataset, AddEosClosesConversations) {
  TinyVocabulary v = test::tiny_vocabulary();
  v.eos = 0;
  v.add_eos = true;
  const Tokenizer with_eos = tiny_tokenizer(v);
  const Dataset data = parse(R"({"messages":[{"role":"assistant","content":"x"}]})", {}, with_eos);
  EXPECT_EQ(data.examples.at(0).ids.back(), 0);
  EXPECT_EQ(data.examples.at(0).is_target.back(), 1);
}

TEST(Dataset, LongRowsAreCutAndCounted) {
  DatasetOptions options;
  options.cutoff_len = 4;
  const Dataset data = parse(
      "{\"prompt\":\"c\",\"completion\":\"defghi\"}\n"   // cut inside the completion
      "{\"prompt\":\"cdefghi\",\"completion\":\"x\"}\n"  // nothing of the completion is left
      "{\"prompt\":\"c\",\"completion\":\"d\"}\n",
      options);
  EXPECT_EQ(data.report.rows, 3);
  EXPECT_EQ(data.report.truncated, 2);
  EXPECT_EQ(data.report.no_target, 1);
  EXPECT_EQ(data.report.usable, 2);
  EXPECT_EQ(all_text(data.examples.at(0)), "cdef");
  EXPECT_EQ(target_text(data.examples[0]), "def");
  EXPECT_EQ(all_text(data.examples.at(1)), "cd<|im_end|>");
}

TEST(Dataset, DroppedBytesAreCounted) {
  const Dataset data = parse("{\"text\":\"a\\u0004b\\u0004\"}\n{\"text\":\"\\u0004ab\"}\n");
  EXPECT_EQ(data.report.dropped_bytes, 3);
}

TEST(Dataset, LinesMayEndAsTheyLike) {
  const std::string row = R"({"text":"ab c"})";
  const Dataset data = parse("\xEF\xBB\xBF" + row + "\r\n\r\n" + "  \t\n" + row + "\n" + row);
  EXPECT_EQ(data.report.rows, 3);
  EXPECT_EQ(data.examples.at(0).ids, data.examples.at(2).ids);
}

TEST(Dataset, MaxSamplesReadsTheFirstRowsOnly) {
  DatasetOptions options;
  options.max_samples = 2;
  EXPECT_EQ(parse("{\"text\":\"ab c\"}\n\n{\"text\":\"d e\"}\nnot JSON", options).report.rows, 2);
}

TEST(Dataset, ManyRowsInOrderWhateverTheThreads) {
  std::string content;
  for (int i = 0; i < 3000; ++i) {
    content += "{\"text\":\"row " + std::to_string(i) + "\"}\n";
  }
  const Dataset many = parse(content);
  set_thread_count(1);
  const Dataset one = parse(content);
  set_thread_count(0);
  ASSERT_EQ(many.examples.size(), 3000U);
  for (std::size_t i = 0; i < many.examples.size(); ++i) {
    EXPECT_EQ(many.examples[i].ids, one.examples[i].ids);
    EXPECT_EQ(all_text(many.examples[i]), "row " + std::to_string(i) + "<|im_end|>");
  }
}

// Text over an alphabet in which tokens straddle any boundary.
rc::Gen<std::string> words() {
  return rc::gen::container<std::string>(
      rc::gen::element('h', 'e', 'l', 'o', ' ', 'w', 'a', 'b', '1', '\n'));
}

RC_GTEST_PROP(DatasetProperty, TargetsAreTheWholeTokensOfTheCompletion, ()) {
  const std::string prompt = std::string("h").append(*words()), completion = *words();
  const Dataset data = parse(Json{{"prompt", prompt}, {"completion", completion}}.dump());
  const Example& example = data.examples.at(0);
  // Independently of offsets: the tokens' own texts add up to the position.
  std::size_t position = 0;
  for (std::size_t i = 0; i < example.ids.size(); ++i) {
    const bool eos = i + 1 == example.ids.size();
    const bool expected = eos || (i > 0 && position >= prompt.size());
    RC_ASSERT((example.is_target[i] != 0) == expected);
    position += eos ? 0 : tiny().decode({&example.ids[i], 1}, true).size();
  }
  RC_ASSERT(position == prompt.size() + completion.size());
  RC_ASSERT(example.ids.back() == tiny().special().eos);
}

RC_GTEST_PROP(DatasetProperty, ChatTargetsAreTheAssistantsWordsExactly, ()) {
  const auto count = *rc::gen::inRange(1, 6);
  Json messages = Json::array();
  std::string expected;
  for (int i = 0; i < count; ++i) {
    const bool assistant = *rc::gen::arbitrary<bool>() || i + 1 == count;
    const std::string content = *words();
    messages.push_back({{"role", assistant ? "assistant" : "user"}, {"content", content}});
    if (assistant) {
      expected += (expected.empty() ? "" : "|") + content + "<|im_end|>";
    }
  }
  const Dataset data = parse(Json{{"messages", messages}}.dump());
  // A content that begins with a newline shares its first token with the header's newline only if
  // the vocabulary has such a merge; this one has none.
  RC_ASSERT(target_text(data.examples.at(0)) == expected);
}

}  // namespace
}  // namespace nibble
