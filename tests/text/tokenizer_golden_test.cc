// SPDX-License-Identifier: Apache-2.0
// The real vocabulary (SmolLM2) against the ids that Hugging Face's tokenizers and llama.cpp gave.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "formats/json.h"
#include "os/file.h"
#include "support/paths.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using text::Tokenizer;
using Ids = std::vector<std::int32_t>;

class RealTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = test::real_model();
    if (!path) {
      GTEST_SKIP() << "no model: set NIBBLE_TEST_MODEL or put it into models/";
    }
    static const Tokenizer instance{formats::GgufFile(*path)};
    tokenizer_ = &instance;
  }

  const Tokenizer* tokenizer_ = nullptr;
};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST_F(RealTokenizer, EqualsThePeers) {
  const auto path = test::golden_dir() / "tokenizer.json";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << "no golden data: " << path;
  }
  const auto golden = formats::parse_json(os::read_file(path, 64U << 20), path.string());
  const auto& rows = golden.at("rows");
  int compared = 0;
  for (const auto& row : rows) {
    const std::string text = from_hex(row.at("utf8_hex").get<std::string>());
    EXPECT_EQ(tokenizer_->encode_ids(text, true), row.at("ids").get<Ids>()) << text;
    // A row without a list of its own has no special tokens in it.
    const char* plain = row.contains("ids_no_special") ? "ids_no_special" : "ids";
    EXPECT_EQ(tokenizer_->encode_ids(text, false), row.at(plain).get<Ids>()) << text;
    EXPECT_EQ(tokenizer_->decode(row.at("ids").get<Ids>(), true), text);
    ++compared;
  }
  EXPECT_GT(compared, 0);
  for (const auto& special : golden.at("special_tokens")) {
    const std::string name = special.get<std::string>();
    EXPECT_EQ(tokenizer_->encode_ids(name, true), Ids({tokenizer_->find(name)}));
  }
}

TEST_F(RealTokenizer, KnownFacts) {
  const auto ids = [&](const std::string& text) { return tokenizer_->encode_ids(text, true); };
  EXPECT_EQ(tokenizer_->vocabulary_size(), 49152);
  EXPECT_EQ(tokenizer_->special().bos, 1);
  EXPECT_EQ(tokenizer_->special().eos, 2);
  EXPECT_EQ(tokenizer_->special().unknown, 0);
  EXPECT_EQ(tokenizer_->special().pad, 2);
  EXPECT_FALSE(tokenizer_->special().add_bos);
  EXPECT_EQ(ids("The capital of France is"), Ids({504, 3575, 282, 4649, 314}));
  EXPECT_EQ(tokenizer_->find("\u0120Paris"), 7042);
  EXPECT_EQ(ids("  two  spaces\n\nnewlines\t tab"),
            Ids({216, 827, 216, 5600, 198, 198, 2241, 5110, 197, 10147}));
  EXPECT_EQ(ids("I'm you're we'll THEY'RE don't"),
            Ids({57, 5248, 346, 2316, 392, 3060, 6462, 73, 23, 3256, 1326, 982}));
  EXPECT_EQ(ids("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
            Ids({1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198}));
  EXPECT_EQ(ids("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, "
                "speak.\n\nFirst Citizen:\nYou are all resolved rather to die than to "
                "famish?\n\nAll:\nResolved. resolved.\n")
                .size(),
            53U);
}

TEST_F(RealTokenizer, MissingBytes) {
  const auto dropped = [&](const std::string& text) {
    std::uint64_t count = 0;
    tokenizer_->encode(text, true, &count);
    return count;
  };
  EXPECT_EQ(tokenizer_->encode_ids("a\x04"
                                   "b",
                                   true),
            Ids({81, 82}));
  EXPECT_EQ(dropped("a\x04"
                    "b"),
            1U);
  EXPECT_EQ(tokenizer_->encode_ids("\U00050000", true).size(), 3U);
  EXPECT_EQ(dropped("\U00050000"), 1U);
  int missing = 0;  // of the bytes that are characters of their own
  for (char c = 0; c < 0x7F; ++c) {
    missing += static_cast<int>(dropped(std::string(1, c)));
  }
  EXPECT_EQ(missing, 6);
}

TEST_F(RealTokenizer, LongTexts) {
  const auto start = std::chrono::steady_clock::now();
  for (const char c : {'a', ' ', '\n', '0', '='}) {
    const std::string text(2 << 20, c);
    const Ids ids = tokenizer_->encode_ids(text, true);
    EXPECT_EQ(tokenizer_->decode(ids, true), text);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 60);
}

}  // namespace
}  // namespace nibble
