// SPDX-License-Identifier: Apache-2.0
// Training data: JSONL rows -> token ids with a mask of targets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "os/file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::text {

// One training sequence. is_target[i] says that token i is to be predicted (from the tokens before
// it); is_target[0] is never set.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> is_target;
  std::int64_t targets() const;
};

struct DatasetOptions {
  std::int64_t cutoff_len = 2048;  // longer rows are cut at the end, and counted
  bool train_on_inputs = false;    // targets are all tokens, not completions only
  std::int64_t max_samples = -1;   // first rows only; -1: all
};

// What was found, to be shown before training.
struct DatasetReport {
  std::int64_t rows = 0;           // lines with a row
  std::int64_t usable = 0;         // rows that became examples
  std::int64_t no_target = 0;      // rows without a single target token: left out
  std::int64_t truncated = 0;      // rows cut at cutoff_len
  std::int64_t double_bos = 0;     // rows that would begin with two BOS: one was removed
  std::int64_t dropped_bytes = 0;  // bytes the vocabulary cannot express
  std::int64_t tokens = 0, targets = 0;
  std::string format;  // "messages", "prompt/completion", "text", "input_ids"
};

struct Dataset {
  std::vector<Example> examples;
  DatasetReport report;
};

// Reads a JSONL file. The format is recognised by the keys of each row and must be the same in all:
//   {"messages": [{"role", "content", "train"?}...]}         rendered by the chat template
//   {"prompt", "completion"}       strings, encoded as one text; EOS is appended if not there
//   {"text"}                       all tokens are targets; EOS is appended if not there
//   {"input_ids", "labels"}        labels are the ids, not shifted, or -100 = ignored; they alone
//                                  say what is a target
// Other keys are ignored. Lines end with LF or CRLF; empty ones are skipped. EOS is a target even
// where pad == eos. BOS is added where the model asks for it. Errors name file, line and byte
// offset: Error(kCorrupt) for a bad row, Error(kInvalidArgument) when no row is usable. `chat` is
// needed only for messages.
Dataset load_dataset(const os::Path& path, const Tokenizer& tokenizer,
                     const std::optional<ChatTemplate>& chat, const DatasetOptions& options);
// The same from memory; `name` stands in messages.
Dataset parse_dataset(std::string_view content, const std::string& name, const Tokenizer& tokenizer,
                      const std::optional<ChatTemplate>& chat, const DatasetOptions& options);

// Moves a random part of the examples (seeded; RandomPurpose::kSplit) to the second result:
// `size` < 1 is a share, otherwise a count.
std::pair<Dataset, Dataset> split_dataset(Dataset dataset, double size, std::uint64_t seed);

// Sequences side by side without padding. targets[i] is the id to predict at position i, -1 = none;
// sequence s is [starts[s], starts[s + 1]); positions restart in each, attention stays inside it.
struct Batch {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> targets;
  std::vector<std::int64_t> starts;
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  std::int64_t target_count() const;
};

Batch make_batch(const std::vector<const Example*>& examples);

// The order of an epoch: a permutation of [0, count) by (seed, epoch) (RandomPurpose::kShuffle).
std::vector<std::int64_t> epoch_order(std::int64_t count, std::uint64_t seed, std::uint32_t epoch);

// Groups an order into packs of at most `capacity` tokens (greedy, in order; an example longer
// than the capacity stands alone). Without packing each pack is one example.
std::vector<std::vector<std::int64_t>> pack_order(const std::vector<Example>& examples,
                                                  const std::vector<std::int64_t>& order,
                                                  bool packing, std::int64_t capacity);

}  // namespace nibble::text
