// SPDX-License-Identifier: Apache-2.0
#include "train/evaluate.h"

#include <algorithm>
#include <cmath>

namespace nibble::train {

double Evaluation::perplexity() const { return std::exp(loss()); }

Evaluation evaluate(model::Llama& model, const std::vector<text::Example>& examples,
                    const model::LoraAdapter* adapter) {
  Evaluation result;
  std::vector<const text::Example*> group;
  std::int64_t tokens = 0;
  const auto flush = [&] {
    if (group.empty()) {
      return;
    }
    const text::Batch batch = text::make_batch(group);
    result.loss_sum += model.loss({batch.ids, batch.targets, batch.starts}, adapter);
    result.targets += batch.target_count();
    result.tokens += batch.tokens();
    group.clear();
    tokens = 0;
  };
  for (const text::Example& example : examples) {
    const auto size = static_cast<std::int64_t>(example.ids.size());
    if (tokens + size > kEvaluationTokens) {
      flush();
    }
    group.push_back(&example);
    tokens += size;
  }
  flush();
  return result;
}

std::vector<text::Example> text_windows(std::span<const std::int32_t> ids, std::int64_t window) {
  std::vector<text::Example> examples;
  for (std::size_t begin = 0; begin < ids.size(); begin += static_cast<std::size_t>(window)) {
    const std::size_t size = std::min(ids.size() - begin, static_cast<std::size_t>(window));
    if (size < 2) {
      break;
    }
    text::Example& example = examples.emplace_back();
    example.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                       ids.begin() + static_cast<std::ptrdiff_t>(begin + size));
    example.is_target.assign(size, 1);
    example.is_target[0] = 0;
  }
  return examples;
}

}  // namespace nibble::train
