// SPDX-License-Identifier: Apache-2.0
// Mean loss of examples or of a text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/llama.h"
#include "text/dataset.h"

namespace nibble::train {

struct Evaluation {
  double loss_sum = 0;  // nats
  std::int64_t targets = 0, tokens = 0;
  double loss() const { return targets > 0 ? loss_sum / static_cast<double>(targets) : 0; }
  double perplexity() const;
};

// Passes of up to this many tokens (or one example, if that is longer).
inline constexpr std::int64_t kEvaluationTokens = 1024;

// The mean over all target tokens.
Evaluation evaluate(model::Llama& model, const std::vector<text::Example>& examples,
                    const model::LoraAdapter* adapter);

// A text as one stream, cut into windows of `window` tokens; every token but the first of a window
// is a target.
std::vector<text::Example> text_windows(std::span<const std::int32_t> ids, std::int64_t window);

}  // namespace nibble::train
