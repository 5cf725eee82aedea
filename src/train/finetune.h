// SPDX-License-Identifier: Apache-2.0
// A fine-tuning run.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "train/evaluate.h"
#include "train/setup.h"

namespace nibble::train {

struct Progress {
  std::int64_t step, total_steps;
  double loss, learning_rate, grad_norm;
  double tokens_per_second, remaining_seconds;
  std::uint64_t peak_bytes;
  bool logged;  // also written to the log
};

// How a run speaks to whoever started it. Called from the thread that runs it.
class Reporter {
 public:
  virtual ~Reporter() = default;
  virtual void info(const std::string& line) = 0;
  virtual void warn(const std::string& line) = 0;
  virtual void progress(const Progress& progress) = 0;
};

struct FinetuneSummary {
  std::optional<double> eval_loss_before, eval_loss_after;  // before: not known to a resumed run
  std::int64_t steps = 0, total_tokens = 0;
  double training_seconds = 0;
  bool interrupted = false;  // by `stop`: a checkpoint was written, the adapter was not
};

// Runs to the end, or until `stop` becomes true (then it finishes the step and saves a checkpoint).
// Writes into options.output_dir: trainer_log.jsonl, checkpoint-N/, and at the end
// adapter_model.safetensors, adapter.gguf and adapter_config.json (last). What the directory may
// hold before: train/output_directory.h. Error(kOutOfMemory) before anything is made if the
// estimate exceeds what is available; Error(kNonFinite) after ten steps in a row with non-finite
// gradients, or if the adapter or the loss come out so.
FinetuneSummary finetune(Setup& setup, Reporter& reporter, const std::atomic<bool>& stop);

// The errors that finetune() would begin with, of memory and of the output directory (if one is
// given), without doing anything.
void check_ready(const Setup& setup);

// Writes the rows of every pass in training order, one JSON object a line: {"step", "micro_step",
// "input_ids", "labels"} with -100 for what is not a target. An existing file is an
// Error(kInvalidArgument).
void dump_batches(Setup& setup, const os::Path& path);

}  // namespace nibble::train
