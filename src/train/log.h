// SPDX-License-Identifier: Apache-2.0
// trainer_log.jsonl, with LLaMA-Factory's keys: one object a line, the first with the eval_loss
// before step 1, the last with the final one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "os/file.h"

namespace nibble::train {

struct LogEntry {
  std::int64_t current_steps = 0, total_steps = 0;
  std::optional<double> loss, eval_loss, lr, grad_norm;
  double epoch = 0;
  double elapsed_seconds = 0, remaining_seconds = 0;
  double throughput = 0;  // tokens per second of training
  std::int64_t total_tokens = 0;
};

inline constexpr const char* kLogName = "trainer_log.jsonl";

class TrainLog {
 public:
  explicit TrainLog(os::Path path) : path_(std::move(path)) {}

  // Whether this file can only be what a run that saves every `save_steps` steps (0: at its end)
  // wrote before its first checkpoint: absent, empty, or from step 0 on in these very keys. Another
  // program's log of the same name (LLaMA-Factory's) is not.
  bool is_of_a_beginning(std::int64_t save_steps) const;

  // Drops the lines of steps after `step`, which a resumed run will write again.
  void rewind(std::int64_t step);
  // A full disk must not end a run: returns false instead of throwing.
  bool append(const LogEntry& entry);

 private:
  os::Path path_;
};

std::string format_duration(double seconds);  // "1:02:03"

}  // namespace nibble::train
