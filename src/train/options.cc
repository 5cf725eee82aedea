// SPDX-License-Identifier: Apache-2.0
#include "train/options.h"

namespace nibble::train {

const OptimizerChoice* find_optimizer(std::string_view name) {
  for (const OptimizerChoice& choice : kOptimizers) {
    if (name == choice.name) {
      return &choice;
    }
  }
  return nullptr;
}

formats::Json FinetuneOptions::identity() const {
  formats::Json targets = formats::Json::array();
  for (int i = 0; i < model::kLinears; ++i) {
    if (lora.targets[i]) {
      targets.push_back(model::kLinearInfo[i].hf);
    }
  }
  return {{"val_size", val_size},
          {"max_samples", max_samples},
          {"chat_template", chat_template},
          {"lora_rank", lora.rank},
          {"lora_alpha", lora.alpha},
          {"lora_dropout", static_cast<double>(lora.dropout)},
          {"use_rslora", lora.rslora},
          {"lora_target", targets},
          {"learning_rate", learning_rate},
          {"lr_scheduler_type", lr_scheduler},
          {"warmup_ratio", warmup_ratio},
          {"warmup_steps", warmup_steps},
          {"max_grad_norm", max_grad_norm},
          {"weight_decay", weight_decay},
          {"adam_beta1", beta1},
          {"adam_beta2", beta2},
          {"adam_epsilon", epsilon},
          {"optim", optimizer},
          {"micro_batch_size", micro_batch_size},
          {"gradient_accumulation_steps", accumulation},
          {"cutoff_len", cutoff_len},
          {"packing", packing},
          {"train_on_inputs", train_on_inputs},
          {"num_train_epochs", epochs},
          {"max_steps", max_steps},
          {"seed", seed},
          {"compute_dtype", compute_dtype}};
}

formats::Json FinetuneOptions::all() const {
  formats::Json json = identity();
  json.update(
      {{"model", model},
       {"dataset", dataset},
       {"eval_dataset", eval_dataset},
       {"output_dir", output_dir},
       {"logging_steps", logging_steps},
       {"eval_steps", eval_steps},
       {"save_steps", save_steps},
       {"save_total_limit", save_total_limit},
       {"resume", resume},
       {"resume_from_checkpoint", resume ? (newest_checkpoint() ? "auto" : resume_from) : ""},
       {"gradient_checkpointing", gradient_checkpointing}});
  return json;
}

}  // namespace nibble::train
