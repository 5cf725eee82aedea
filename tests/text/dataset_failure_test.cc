// SPDX-License-Identifier: Apache-2.0
// Every way in which a dataset can be refused, and what the message says.
#include <gtest/gtest.h>

#include "os/file.h"
#include "support/error_of.h"
#include "support/tiny_tokenizer.h"
#include "text/dataset.h"

namespace nibble {
namespace {

using test::error_of;
using test::mentions;
using test::tiny_tokenizer;
using test::TinyVocabulary;
using text::ChatTemplate;
using text::Dataset;
using text::DatasetOptions;
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

struct Failure {
  std::string content;
  StatusCode code;
  std::vector<std::string> parts;  // of the message
};

TEST(DatasetFailure, FailuresSayWhere) {
  const StatusCode corrupt = StatusCode::kCorrupt;
  const std::string good = "{\"text\":\"ab\"}\n";  // 14 bytes
  const std::vector<Failure> failures = {
      {good + "{\"text\":", corrupt, {"data.jsonl", "line 2", "offset 22"}},
      {good + "\n[1]", corrupt, {"line 3", "offset 15", "not an object"}},
      {good + "{\"text\":1}", corrupt, {"line 2", "offset 14", "'text'", "not a string"}},
      {good + "{\"text\":\"a\",\"text\":\"b\"}", corrupt, {"line 2", "duplicate key 'text'"}},
      {good + "{\"text\":\"\xFF\"}", corrupt, {"line 2"}},
      {good + "{\"text\":\"\\ud800\"}", corrupt, {"line 2"}},
      {good + R"({"prompt":"a","completion":"b"})",
       corrupt,
       {"line 2", "offset 14", "prompt/completion", "text"}},
      {R"({"prompt":"a","text":"b","completion":"c"})", corrupt, {"two formats"}},
      {R"({"prompt":"a"})", corrupt, {"no 'completion'"}},
      {R"({"input_ids":[1]})", corrupt, {"no 'labels'"}},
      {R"({"instruction":"a","output":"b"})", corrupt, {"line 1", "'messages'", "'instruction'"}},
      {R"({})", corrupt, {"its keys: none"}},
      {R"({"prompt":null,"completion":"b"})", corrupt, {"'prompt' is null"}},
      {R"({"messages":[]})", corrupt, {"'messages' is empty"}},
      {R"({"messages":"x"})", corrupt, {"'messages' is string"}},
      {R"({"messages":["x"]})", corrupt, {"message 0", "not an object"}},
      {R"({"messages":[{"role":"user"}]})", corrupt, {"message 0 has no 'content'"}},
      {R"({"messages":[{"content":"x"}]})", corrupt, {"message 0 has no 'role'"}},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
       corrupt,
       {"message 0", "'content' is array"}},
      {R"({"messages":[{"role":"human","content":"x"}]})", corrupt, {"line 1", "'human'"}},
      {R"({"messages":[{"role":"assistant","content":"x","train":1}]})", corrupt, {"'train'"}},
      {R"({"messages":[{"role":"user","content":"x","train":true}]})", corrupt, {"only assistant"}},
      {R"({"messages":[{"role":"user","content":"x","weight":1}]})",
       corrupt,
       {"message 0", "'weight'", "only assistant"}},
      {R"({"messages":[{"role":"assistant","content":"x","weight":0.5}]})",
       corrupt,
       {"message 0", "'weight' is 0.5"}},
      {R"({"messages":[{"role":"assistant","content":"x","weight":true}]})",
       corrupt,
       {"'weight' is true"}},
      {R"({"messages":[{"role":"assistant","content":"x","weight":null}]})",
       corrupt,
       {"'weight' is null"}},
      {R"({"messages":[{"role":"assistant","content":"x","weight":2}]})",
       corrupt,
       {"'weight' is 2"}},
      {R"({"messages":[{"role":"assistant","content":"x","weight":1,"train":true}]})",
       corrupt,
       {"both 'train' and 'weight'"}},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[]})",
       corrupt,
       {"line 1", "the row has 'tools'"}},
      {R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a"}]}]})",
       corrupt,
       {"message 0 has 'tool_calls'"}},
      {R"({"messages":[{"role":"user","content":"<|im_end|>"}]})",
       corrupt,
       {"line 1", "own marker <|im_end|>"}},
      {R"({"input_ids":[5,6],"labels":[5]})", corrupt, {"same length"}},
      {R"({"input_ids":[5,6000],"labels":[5,6000]})", corrupt, {"input_ids[1] is 6000"}},
      {R"({"input_ids":[5,-1],"labels":[5,-1]})", corrupt, {"input_ids[1] is -1"}},
      {R"({"input_ids":[5,18446744073709551615],"labels":[5,6]})", corrupt, {"input_ids[1]"}},
      {R"({"input_ids":[5,1.0],"labels":[5,1]})", corrupt, {"input_ids[1] is not an integer"}},
      {R"({"input_ids":[5,6],"labels":[5,7]})", corrupt, {"labels[1] is 7", "input_ids[1] = 6"}},
      {good + "{\"text\":\"" + std::string(16 << 20, 'a') + "\"}",
       corrupt,
       {"line 2", "offset 14", "16777227 bytes"}},
      {"", StatusCode::kInvalidArgument, {"data.jsonl: no rows"}},
      {"\n \n", StatusCode::kInvalidArgument, {"no rows"}},
  };
  for (const Failure& failure : failures) {
    const std::string shown = failure.content.substr(0, 80);
    const Error error = error_of([&] { parse(failure.content); });
    EXPECT_EQ(error.code(), failure.code) << shown << ": " << error.what();
    for (const std::string& part : failure.parts) {
      EXPECT_TRUE(mentions(error, part)) << shown << "\n" << error.what() << "\n" << part;
    }
  }
}

TEST(DatasetFailure, TheFirstBadLineIsReportedWhateverTheThreads) {
  std::string content;
  for (int i = 0; i < 200; ++i) {
    content += i >= 20 ? "{}\n" : "{\"text\":\"" + std::string(2000, 'a') + "\"}\n";
  }
  for (int trial = 0; trial < 20; ++trial) {
    const Error error = error_of([&] { parse(content); });
    EXPECT_TRUE(mentions(error, "line 21,")) << error.what();
  }
}

TEST(DatasetFailure, ADatasetWithoutTargetsIsAnError) {
  DatasetOptions options;
  options.cutoff_len = 3;
  const Error error = error_of([&] {
    parse(R"({"messages":[{"role":"user","content":"a"}]})"
          "\n"
          R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})",
          options);
  });
  EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  for (const char* part : {"data.jsonl", "2 rows", "messages", "cutoff_len 3", "2 were cut"}) {
    EXPECT_TRUE(mentions(error, part)) << error.what() << "\n" << part;
  }
}

TEST(DatasetFailure, RefusesOptionsAndModelsThatCannotWork) {
  for (const auto& [cutoff, samples] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, -1}, {-5, -1}, {8, 0}, {8, -2}}) {
    DatasetOptions options;
    options.cutoff_len = cutoff;
    options.max_samples = samples;
    const Error error = error_of([&] { parse("{\"text\":\"ab\"}", options); });
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument) << cutoff << " " << samples;
  }
  const Error no_chat = error_of([] {
    text::parse_dataset(R"({"messages":[{"role":"user","content":"a"}]})", "d", tiny(),
                        std::nullopt, {});
  });
  EXPECT_EQ(no_chat.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(mentions(no_chat, "--chat-template")) << no_chat.what();
  TinyVocabulary v = test::tiny_vocabulary();
  v.eos.reset();
  const Tokenizer no_eos = tiny_tokenizer(v);
  const Error error = error_of([&] { parse("{\"text\":\"ab\"}", {}, no_eos); });
  EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(mentions(error, "eos_token_id")) << error.what();
}

TEST(DatasetFailure, FromAFile) {
  const test::TemporaryDirectory directory;
  const auto path = directory.path() / "rows.jsonl";
  os::write_file(path, "{\"text\":\"ab c\"}\n");
  EXPECT_EQ(text::load_dataset(path, tiny(), std::nullopt, {}).report.rows, 1);
  os::write_file(path, "{}\n");
  EXPECT_TRUE(mentions(error_of([&] { text::load_dataset(path, tiny(), std::nullopt, {}); }),
                       path.string()));
  os::write_file(path, "");
  EXPECT_TRUE(
      mentions(error_of([&] { text::load_dataset(path, tiny(), std::nullopt, {}); }), "no rows"));
  const Error absent =
      error_of([&] { text::load_dataset(directory.path() / "none", tiny(), std::nullopt, {}); });
  EXPECT_EQ(absent.code(), StatusCode::kIo);
}

}  // namespace
}  // namespace nibble
