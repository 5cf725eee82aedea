// SPDX-License-Identifier: Apache-2.0
// What a run needs, and whether the machine has it.
#include "core/status.h"
#include "os/system.h"
#include "train/setup.h"

namespace nibble::train {
namespace {

// Code, tokenizer, compiled kernels and scratch: measured on small runs, rounded up.
constexpr std::uint64_t kProgramBytes = 160ULL << 20;
// Tensors smaller than this keep fp32 states whatever the format (nibble.h).
constexpr std::int64_t kSmallTensor = 4096;

std::uint64_t state_bytes(std::int64_t elements, const OptimizerChoice& optimizer) {
  const std::int64_t each = elements >= kSmallTensor ? optimizer.bytes_an_element : 8;
  return static_cast<std::uint64_t>(elements * each);
}

}  // namespace

MemoryEstimate Setup::memory() const {
  const model::LlamaConfig& config = model_.config();
  const OptimizerChoice& optimizer = *find_optimizer(options_.optimizer);
  std::uint64_t parameters = 0, states = 0;
  for (int i = 0; i < model::kLinears; ++i) {
    if (!options_.lora.targets[i]) {
      continue;
    }
    const auto which = static_cast<model::Linear>(i);
    for (const std::int64_t side :
         {model::linear_inputs(config, which), model::linear_outputs(config, which)}) {
      const std::int64_t elements = options_.lora.rank * side;
      parameters += static_cast<std::uint64_t>(config.layers * elements);
      states += static_cast<std::uint64_t>(config.layers) * state_bytes(elements, optimizer);
    }
  }
  // fp32 value and gradient, and the copy in bf16; saving a checkpoint copies the values once.
  const std::uint64_t adapter = parameters * (4 + 4 + 2 + 4);
  return {file_.file_bytes(), model_.activation_bytes(largest_pass(), options_.lora.rank), adapter,
          states, kProgramBytes};
}

// The program runs and the model is mapped already: neither is asked for a second time. In
// physical memory the model's pages count as cache that could go, and must be able to stay.
void check_memory(const Setup& setup) {
  const MemoryEstimate m = setup.memory();
  const std::uint64_t fresh = m.activations + m.adapter + m.optimizer;
  const auto require = [&](std::uint64_t need, std::uint64_t have) {
    if (need > have) {
      fail(StatusCode::kOutOfMemory,
           "{}: this run needs about {} MiB more memory and {} MiB are available; lower "
           "--micro-batch-size, --cutoff-len or --lora-rank, or use --gradient-checkpointing and "
           "--optim adamw_8bit",
           setup.options().model, (need >> 20) + 1, have >> 20);
    }
  };
  require(fresh, os::available_address_space());
  if (const std::uint64_t physical = os::available_physical_bytes(); physical > 0) {
    require(m.model + fresh, physical);
  }
}

}  // namespace nibble::train
