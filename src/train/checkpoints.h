// SPDX-License-Identifier: Apache-2.0
// A run's checkpoints: output_dir/checkpoint-N, in the container of formats/checkpoint.h, with the
// adapter in PEFT's layout, so that each is an adapter directory by itself.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "formats/checkpoint.h"
#include "model/adapter_io.h"
#include "train/optimizer.h"

namespace nibble::train {

// What a run is at between two steps, beside adapter and optimizer. Random numbers and the position
// in the data are functions of (seed, step): src/math/philox.h, train/step_plan.h.
struct RunState {
  std::int64_t step = 0;          // optimizer steps done (or skipped for non-finite gradients)
  std::int64_t total_tokens = 0;  // processed by training passes
  double training_seconds = 0;    // spent in steps
  std::int64_t skipped_in_a_row = 0;
  double loss_sum = 0;  // since the last logged step
  std::int64_t loss_steps = 0;
};

class Checkpoints {
 public:
  // `identity`: what must be equal when a run is resumed (options, hashes of data and model).
  Checkpoints(os::Path output_dir, formats::Json identity, std::string base_model);

  // A whole checkpoint of this very run and step stays as it is; anything else that stands in the
  // way and may be of worth to somebody is moved aside, to "checkpoint-N.old-K".
  void save(const RunState& state, const model::LoraAdapter& adapter,
            const model::LlamaConfig& model, const Optimizer& optimizer, std::int64_t keep);

  // Whether the directory holds any checkpoint, whole or not.
  static bool any(const os::Path& output_dir) { return !list(output_dir).empty(); }

  // Loads `path`, or with "" or "auto" the newest whole checkpoint of the output directory; damaged
  // ones are passed over and reported through `warn`. Nothing there: nothing is changed and nullopt
  // returned. Error(kInvalidArgument) names the first setting that differs from the checkpoint's;
  // another instruction set is only warned of, since products differ in their last bits there.
  std::optional<RunState> restore(const std::string& path, const model::LlamaConfig& model,
                                  model::LoraAdapter& adapter, Optimizer& optimizer,
                                  const std::function<void(const std::string&)>& warn) const;

 private:
  using Warn = std::function<void(const std::string&)>;
  // Newest first.
  static std::vector<std::pair<std::int64_t, os::Path>> list(const os::Path& output_dir);
  RunState load(const formats::Checkpoint& checkpoint, const model::LlamaConfig& model,
                model::LoraAdapter& adapter, Optimizer& optimizer, const Warn& warn) const;
  void compare_identity(const formats::Json& theirs, const std::string& name,
                        const Warn& warn) const;
  bool make_way(const os::Path& path, std::int64_t step) const;
  void prune(std::int64_t step, std::int64_t keep) const;

  os::Path output_dir_;
  formats::Json identity_;
  std::string base_model_;
};

}  // namespace nibble::train
