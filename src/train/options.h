// SPDX-License-Identifier: Apache-2.0
// What a fine-tuning run is asked to do. Names and defaults are those that users of LLaMA-Factory,
// axolotl, unsloth and PEFT know; the command's flags carry the same names (src/cli/finetune.cc).
#pragma once

#include <cstdint>
#include <string>

#include "formats/json.h"
#include "model/lora.h"

namespace nibble::train {

// The choices of --optim: AdamW with these states.
struct OptimizerChoice {
  const char* name;
  const char* state_format;       // of libnibble
  std::int64_t bytes_an_element;  // of both moments with their scales, at most
};
inline constexpr OptimizerChoice kOptimizers[] = {
    {"adamw", "fp32", 8}, {"adamw_8bit", "int8", 3}, {"adamw_4bit", "int4", 2}};
// nullptr for another name.
const OptimizerChoice* find_optimizer(std::string_view name);

struct FinetuneOptions {
  std::string model, dataset, eval_dataset, output_dir;
  double val_size = 0;  // share (< 1) or count of rows to hold out when there is no eval_dataset
  std::int64_t max_samples = -1;
  std::string chat_template;  // "" = the model's own

  model::LoraConfig lora;

  double learning_rate = 2e-4;
  std::string lr_scheduler = "cosine";  // cosine, linear, constant
  double warmup_ratio = 0.03;
  std::int64_t warmup_steps = -1;  // >= 0 overrides the ratio
  double max_grad_norm = 1.0;      // 0: no clipping
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  std::string optimizer = "adamw";  // a row of kOptimizers

  std::int64_t micro_batch_size = 1;  // packs (or rows) a pass
  std::int64_t accumulation = 8;      // passes an optimizer step
  std::int64_t cutoff_len = 0;        // 0: 2048, or the model's context where that is shorter
  bool packing = true;
  bool train_on_inputs = false;
  double epochs = 3;
  std::int64_t max_steps = -1;  // >= 0 overrides the epochs
  std::uint64_t seed = 42;

  std::int64_t logging_steps = 10;
  std::int64_t eval_steps = 0;  // 0: only before the first step and after the last
  std::int64_t save_steps = 100;
  std::int64_t save_total_limit = 2;  // checkpoints kept
  bool resume = false;
  std::string resume_from;  // "" or "auto": the newest whole checkpoint in output_dir
  bool newest_checkpoint() const { return resume_from.empty() || resume_from == "auto"; }

  std::string compute_dtype = "auto";  // auto, fp32, bf16
  bool gradient_checkpointing = true;

  // Everything that decides the run's numbers: compared when a run is resumed.
  formats::Json identity() const;
  // All of them, under the names of their flags.
  formats::Json all() const;
};

}  // namespace nibble::train
