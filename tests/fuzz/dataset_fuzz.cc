// SPDX-License-Identifier: Apache-2.0
// Bytes as a JSONL dataset (first byte 0 or more than 2), as a chat template (1), or as the content
// of a chat (2): what is accepted must keep the promises of the headers.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/parallel.h"
#include "core/status.h"
#include "support/tiny_tokenizer.h"
#include "text/dataset.h"

namespace {

using namespace nibble::text;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void dataset(const Tokenizer& tokenizer, std::string_view content) {
  DatasetOptions options;
  options.cutoff_len = 64;
  const Dataset data =
      parse_dataset(content, "fuzz", tokenizer, ChatTemplate::family("chatml"), options);
  std::int64_t tokens = 0, targets = 0;
  for (const Example& example : data.examples) {
    require(example.ids.size() == example.is_target.size() && example.ids.size() <= 64);
    require(example.is_target[0] == 0 && example.targets() > 0);
    for (const std::int32_t id : example.ids) {
      require(id >= 0 && id < tokenizer.vocabulary_size());
    }
    tokens += static_cast<std::int64_t>(example.ids.size());
    targets += example.targets();
  }
  const DatasetReport& report = data.report;
  require(report.usable == static_cast<std::int64_t>(data.examples.size()));
  require(report.usable + report.no_target == report.rows);
  require(report.tokens == tokens && report.targets == targets);
}

void chat(std::string_view content) {
  const auto rendered = ChatTemplate::family("chatml").render(
      {{"user", std::string(content)}, {"assistant", std::string(content)}}, true);
  require(rendered.completions.size() == 1);
  const auto span = rendered.completions[0];
  require(rendered.text.substr(span.begin, span.end - span.begin) ==
          std::string(content) + "<|im_end|>");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  static const Tokenizer tiny = nibble::test::tiny_tokenizer();
  nibble::set_thread_count(1);
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == 1) {
      (void)ChatTemplate::recognise(rest).render({{"user", "x"}}, true);
    } else if (data[0] == 2) {
      chat(rest);
    } else {
      dataset(tiny, rest);
    }
  } catch (const nibble::Error& error) {
    require(*error.what() != '\0');
  }
  return 0;
}
