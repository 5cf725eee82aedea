// SPDX-License-Identifier: Apache-2.0
// Which examples go into which step: a function of the data, the seed and the step's number alone,
// so that a resumed run continues in the right place.
#pragma once

#include <cstdint>
#include <vector>

#include "text/dataset.h"
#include "train/options.h"

namespace nibble::train {

struct Step {
  double epoch;                                          // after this step
  std::uint32_t first_micro_step;                        // passes before this step
  std::vector<std::vector<std::int64_t>> micro_batches;  // examples of each pass
};

class StepPlan {
 public:
  // `examples` must outlive the plan.
  StepPlan(const std::vector<text::Example>& examples, const FinetuneOptions& options);

  std::int64_t total_steps() const { return total_; }
  Step step(std::int64_t number);  // 0 <= number < total_steps(); cheap in increasing order

 private:
  using Packs = std::vector<std::vector<std::int64_t>>;
  void load_epoch(std::int64_t epoch);
  std::int64_t steps_in(const Packs& packs) const;

  const std::vector<text::Example>& examples_;
  const FinetuneOptions& options_;
  std::int64_t total_ = 0;
  std::int64_t epoch_ = -1, epoch_first_step_ = 0, epoch_first_micro_step_ = 0;
  Packs packs_;  // of the loaded epoch
};

}  // namespace nibble::train
