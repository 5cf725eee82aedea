// SPDX-License-Identifier: Apache-2.0
// One row of a dataset -> one training sequence. Internal to the dataset.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "formats/json.h"
#include "text/dataset.h"

namespace nibble::text {

enum class RowFormat { kMessages, kPromptCompletion, kText, kInputIds };
std::string_view row_format_name(RowFormat format);

// By the row's keys. Error(kCorrupt): no format's keys, only a part of them, or those of two.
RowFormat row_format(const formats::Json& row);

struct Row {
  Example example;  // not cut
  bool double_bos = false;
  std::uint64_t dropped_bytes = 0;
};

// What turns rows into sequences, the same for all rows of a dataset. Thread-safe.
struct RowEncoder {
  const Tokenizer& tokenizer;
  const std::optional<ChatTemplate>& chat;
  bool train_on_inputs;

  // What rows of this format need of the model: Error(kInvalidArgument) if it is missing.
  void check_model(RowFormat format) const;
  // Errors say what is wrong with the row, not where it stands.
  Row encode(const formats::Json& row, RowFormat format) const;

 private:
  struct Text {
    std::string text;
    std::vector<RenderedChat::Span> completions;
    bool all_targets;
    bool append_eos;
  };
  Text rendered(const formats::Json& row, RowFormat format) const;
  Row encode_text(const Text& text) const;
};

}  // namespace nibble::text
