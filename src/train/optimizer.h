// SPDX-License-Identifier: Apache-2.0
// The adapter's optimizer: libnibble through its public C API, like any other program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "model/lora.h"
#include "train/options.h"

struct nibble_optimizer;

namespace nibble::train {

class Optimizer {
 public:
  // Borrows the adapter's parameters and gradients, which must stay where they are.
  Optimizer(model::LoraAdapter& adapter, const FinetuneOptions& options);

  struct StepResult {
    double grad_norm;         // before clipping; infinite if a gradient was not finite
    std::int64_t non_finite;  // > 0: the step was not taken
  };
  // Clips to max_grad_norm (as PyTorch: factor max / (norm + 1e-6), at most 1) and steps.
  StepResult step(double learning_rate, double max_grad_norm);

  std::int64_t step_count() const;
  std::uint64_t state_bytes() const { return state_bytes_; }

  // The states as tensors "<parameter>.<state>", in the optimizer's own memory; and their way back.
  std::vector<formats::SafeTensor> states() const;
  void load(const formats::SafetensorsFile& file, std::int64_t step_count);

 private:
  struct Destroy {
    void operator()(nibble_optimizer* optimizer) const;
  };
  void add(const std::string& name, std::int64_t rows, std::int64_t cols, float* values,
           const float* grad);

  std::unique_ptr<nibble_optimizer, Destroy> handle_;
  std::vector<std::string> names_;
  std::vector<const void*> grads_;
  std::vector<std::int64_t> counts_;
  std::uint64_t state_bytes_ = 0;
};

}  // namespace nibble::train
