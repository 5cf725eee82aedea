// SPDX-License-Identifier: Apache-2.0
// What stands before the first step of a run: everything opened, read, checked and counted.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/llama.h"
#include "text/dataset.h"
#include "train/options.h"
#include "train/step_plan.h"

namespace nibble::train {

// "auto", "fp32" or "bf16" to the dtype of training products; auto is bf16 where the hardware has
// it.
backend::DType compute_dtype(const std::string& name);

// Key of identity(), and its value: what the kernels run on. Unlike the other keys it may differ
// when a run is resumed.
inline constexpr const char* kInstructionSet = "instruction_set";
std::string instruction_set();

// One line on what was found in the data: rows, tokens, and what was left out, cut or dropped.
std::string report_line(const char* name, const text::DatasetReport& report);

// What a --cutoff-len of 0 (not given) stands for with this model; another length is checked
// against its context. `name` is the model's, for the message.
std::int64_t cutoff_length(std::int64_t asked, std::int64_t context, const std::string& name);

// The model's own chat template, or the family that was asked for; nullopt if the model has none.
std::optional<text::ChatTemplate> chat_template(const formats::GgufFile& file,
                                                const std::string& forced);

struct MemoryEstimate {
  std::uint64_t model, activations, adapter, optimizer, program;
  std::uint64_t total() const { return model + activations + adapter + optimizer + program; }
};

class Setup;

// Error(kOutOfMemory) that names the model, the need and what is available, if the run cannot fit.
// To be called before the run takes memory of its own.
void check_memory(const Setup& setup);

class Setup {
 public:
  // Reads model and data. Throws what they throw, and Error(kInvalidArgument) for options that
  // cannot work, naming the flag.
  explicit Setup(const FinetuneOptions& options);

  const FinetuneOptions& options() const { return options_; }
  const formats::GgufFile& file() const { return file_; }
  const text::Tokenizer& tokenizer() const { return tokenizer_; }
  model::Llama& model() { return model_; }
  const text::Dataset& train() const { return data_.first; }
  const text::Dataset& eval() const { return data_.second; }
  StepPlan& plan() { return plan_; }
  const StepPlan& plan() const { return plan_; }

  // At most so many tokens are in one pass of the run.
  std::int64_t largest_pass() const;
  MemoryEstimate memory() const;
  // Options and hashes of the model and data files: what a resumed run must share.
  formats::Json identity() const;
  // Every option as it was resolved: what --dry-run prints.
  formats::Json resolved() const;
  // Lines that tell a person what was found and what will run.
  std::vector<std::string> describe() const;

 private:
  std::pair<text::Dataset, text::Dataset> load_data();

  FinetuneOptions options_;
  formats::GgufFile file_;
  text::Tokenizer tokenizer_;
  model::Llama model_;
  std::pair<text::Dataset, text::Dataset> data_;  // to train on, held out
  StepPlan plan_;
};

}  // namespace nibble::train
