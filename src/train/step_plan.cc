// SPDX-License-Identifier: Apache-2.0
#include "train/step_plan.h"

#include <algorithm>
#include <cmath>

namespace nibble::train {
namespace {

std::int64_t ceil_div(std::int64_t n, std::int64_t d) { return (n + d - 1) / d; }

}  // namespace

StepPlan::StepPlan(const std::vector<text::Example>& examples, const FinetuneOptions& options)
    : examples_(examples), options_(options) {
  if (options.max_steps >= 0) {
    total_ = options.max_steps;
    return;
  }
  // The number of packs differs a little from epoch to epoch, since the order does.
  const auto whole = static_cast<std::int64_t>(std::floor(options.epochs));
  for (std::int64_t epoch = 0; epoch < whole; ++epoch) {
    load_epoch(epoch);
    total_ += steps_in(packs_);
  }
  if (const double rest = options.epochs - static_cast<double>(whole); rest > 0) {
    load_epoch(whole);
    total_ += static_cast<std::int64_t>(std::ceil(rest * static_cast<double>(steps_in(packs_))));
  }
  epoch_ = -1;
}

std::int64_t StepPlan::steps_in(const Packs& packs) const {
  return ceil_div(static_cast<std::int64_t>(packs.size()),
                  options_.micro_batch_size * options_.accumulation);
}

void StepPlan::load_epoch(std::int64_t epoch) {
  if (epoch == epoch_ + 1 && epoch_ >= 0) {
    epoch_first_step_ += steps_in(packs_);
    epoch_first_micro_step_ +=
        ceil_div(static_cast<std::int64_t>(packs_.size()), options_.micro_batch_size);
  } else {
    epoch_first_step_ = epoch_first_micro_step_ = 0;
  }
  const auto order = text::epoch_order(static_cast<std::int64_t>(examples_.size()), options_.seed,
                                       static_cast<std::uint32_t>(epoch));
  packs_ = text::pack_order(examples_, order, options_.packing, options_.cutoff_len);
  epoch_ = epoch;
}

Step StepPlan::step(std::int64_t number) {
  if (epoch_ < 0 || number < epoch_first_step_) {
    epoch_ = -1;
    load_epoch(0);
  }
  while (number >= epoch_first_step_ + steps_in(packs_)) {
    load_epoch(epoch_ + 1);
  }
  const std::int64_t inside = number - epoch_first_step_;
  const auto pack_count = static_cast<std::int64_t>(packs_.size());
  const std::int64_t per_step = options_.micro_batch_size * options_.accumulation;
  const std::int64_t begin = inside * per_step, end = std::min(pack_count, begin + per_step);
  Step step;
  step.epoch =
      static_cast<double>(epoch_) + static_cast<double>(end) / static_cast<double>(pack_count);
  step.first_micro_step =
      static_cast<std::uint32_t>(epoch_first_micro_step_ + begin / options_.micro_batch_size);
  for (std::int64_t first = begin; first < end; first += options_.micro_batch_size) {
    auto& batch = step.micro_batches.emplace_back();
    for (std::int64_t p = first; p < std::min(end, first + options_.micro_batch_size); ++p) {
      const auto& pack = packs_[static_cast<std::size_t>(p)];
      batch.insert(batch.end(), pack.begin(), pack.end());
    }
  }
  return step;
}

}  // namespace nibble::train
