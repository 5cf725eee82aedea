// SPDX-License-Identifier: Apache-2.0
// nibble finetune: flag names, aliases and defaults that users of the peers know.
#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>

#include "cli/checks.h"
#include "cli/command.h"
#include "cli/console.h"
#include "core/parallel.h"
#include "core/status.h"
#include "os/system.h"

namespace nibble::cli {
namespace {

using train::FinetuneOptions;

std::atomic<bool> g_stop{false};

// The first signal ends the run after the step under way; the second one at once.
void on_signal(int number) {
  if (g_stop.exchange(true)) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

struct FinetuneCommand {
  FinetuneOptions options;
  MachineOptions machine;
  std::vector<std::string> targets{"all"};
  std::optional<double> alpha;  // the rank if not given
  std::string config, dump_batches;
  bool dry_run = false;
};

// A closed terminal ends a run as SIGTERM does, but not one that was started with nohup.
void install_signal_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) {
    std::signal(SIGHUP, SIG_IGN);
  }
}

void add_data_flags(CLI::App& app, FinetuneCommand& c) {
  FinetuneOptions& o = c.options;
  app.add_option("-m,--model,--model-name-or-path", o.model, "GGUF file to fine-tune")->required();
  app.add_option("-d,--dataset,--data,--train-file", o.dataset,
                 "JSONL: messages, prompt/completion, text or input_ids rows")
      ->required();
  app.add_option("--eval-dataset,--eval-file,--validation-file", o.eval_dataset,
                 "JSONL of held-out rows");
  app.add_option("--val-size,--val-set-size,--val-split", o.val_size,
                 "hold out this share (< 1) or number of rows");
  app.add_option("-o,--output-dir", o.output_dir, "where everything is written; absent or empty");
  app.add_option("--max-samples", o.max_samples, "use the first rows only");
  app.add_option(
      "-c,--cutoff-len,--max-seq-length,--max-length,--sequence-len", o.cutoff_len,
      "longer rows are cut; also the size of a pack (default: 2048, or the model's context)");
  app.add_flag("--packing,--sample-packing,!--no-packing", o.packing,
               "fill passes with whole rows, without attention between them (on)");
  app.add_flag("--train-on-inputs,--train-on-prompt,!--train-on-completions", o.train_on_inputs,
               "prompts count in the loss too");
  app.add_option("--chat-template,--template", o.chat_template,
                 "family to use instead of the model's own: chatml");
}

void add_lora_flags(CLI::App& app, FinetuneCommand& c) {
  FinetuneOptions& o = c.options;
  app.add_option("-r,--lora-rank,--lora-r,--r", o.lora.rank, "rank")->capture_default_str();
  app.add_option("--lora-alpha", c.alpha, "alpha (default: the rank)")->check(positive());
  app.add_option("--lora-dropout", o.lora.dropout, "dropout before A")->capture_default_str();
  app.add_option("--lora-target,--target-modules,--lora-modules,--lora-target-modules", c.targets,
                 "layers: all, or q_proj,v_proj,... (or attn_q,...)")
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--use-rslora,!--no-use-rslora", o.lora.rslora, "scale by alpha / sqrt(rank)");
}

void add_optimizer_flags(CLI::App& app, FinetuneCommand& c) {
  FinetuneOptions& o = c.options;
  app.add_option("--learning-rate,--lr", o.learning_rate, "peak learning rate")
      ->capture_default_str();
  app.add_option("--lr-scheduler-type,--lr-scheduler", o.lr_scheduler, "cosine, linear, constant")
      ->capture_default_str();
  app.add_option("--warmup-ratio", o.warmup_ratio, "share of steps")->capture_default_str();
  app.add_option("--warmup-steps", o.warmup_steps, "overrides the ratio");
  app.add_option("--max-grad-norm", o.max_grad_norm, "clip; 0: never")->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay, "decoupled")->capture_default_str();
  app.add_option("--adam-beta1", o.beta1, "")->capture_default_str();
  app.add_option("--adam-beta2", o.beta2, "")->capture_default_str();
  app.add_option("--adam-epsilon", o.epsilon, "")->capture_default_str();
  app.add_option("--optim,--optimizer", o.optimizer,
                 "adamw (fp32 states), adamw_8bit or adamw_4bit; also by the peers' names")
      ->transform(choice({{"adamw", "adamw"},
                          {"adamw_torch", "adamw"},
                          {"adamw_torch_fused", "adamw"},
                          {"adamw_hf", "adamw"},
                          {"paged_adamw_32bit", "adamw"},
                          {"adamw_8bit", "adamw_8bit"},
                          {"adamw_bnb_8bit", "adamw_8bit"},
                          {"paged_adamw_8bit", "adamw_8bit"},
                          {"adamw_4bit", "adamw_4bit"},
                          {"adamw_torch_4bit", "adamw_4bit"}}))
      ->capture_default_str();
}

void add_run_flags(CLI::App& app, FinetuneCommand& c) {
  FinetuneOptions& o = c.options;
  app.add_option("--micro-batch-size,--batch-size,--per-device-train-batch-size",
                 o.micro_batch_size, "packs (or rows) a pass")
      ->capture_default_str();
  app.add_option("--gradient-accumulation-steps,--grad-accum", o.accumulation,
                 "passes an optimizer step")
      ->capture_default_str();
  app.add_option("--num-train-epochs,--num-epochs,--epochs", o.epochs, "may be a fraction")
      ->capture_default_str();
  app.add_option("--max-steps", o.max_steps, "overrides the epochs");
  app.add_option("--seed", o.seed, "of everything random")
      ->check(not_negative())  // -1 would wrap around
      ->capture_default_str();
  app.add_option("--logging-steps", o.logging_steps, "")->capture_default_str();
  app.add_option("--eval-steps", o.eval_steps, "0: only before the first and after the last step")
      ->capture_default_str();
  app.add_option("--save-steps", o.save_steps, "0: only after the last step")
      ->capture_default_str();
  app.add_option("--save-total-limit", o.save_total_limit, "checkpoints kept")
      ->capture_default_str();
  app.add_flag("--resume,!--no-resume", o.resume, "go on from the newest whole checkpoint");
  app.add_option("--resume-from-checkpoint,--resume-from", o.resume_from,
                 "auto, or a checkpoint directory");
  app.add_option("--compute-dtype", c.options.compute_dtype,
                 "of training products: auto, fp32, bf16")
      ->capture_default_str();
  app.add_flag("--gradient-checkpointing,!--no-gradient-checkpointing", o.gradient_checkpointing,
               "compute layers twice instead of keeping them (on)");
  app.add_option("--config", c.config, "YAML file of settings; flags given here override it");
  app.add_option("--dump-batches", c.dump_batches, "write the rows of every pass and end");
  app.add_flag("--dry-run", c.dry_run, "say what would run and what it needs, and end");
  c.machine.add_to(app);
}

void print_summary(const FinetuneOptions& o, const train::FinetuneSummary& summary) {
  const double seconds = summary.training_seconds;
  fmt::print(
      "\n{} steps, {} tokens, {:.0f} s of training ({:.0f} tokens/s), peak memory {} MiB, "
      "instruction set {}\n",
      summary.steps, summary.total_tokens, seconds,
      seconds > 0 ? static_cast<double>(summary.total_tokens) / seconds : 0.0,
      os::peak_resident_bytes() >> 20, train::instruction_set());
  if (summary.eval_loss_before && summary.eval_loss_after) {
    fmt::print("held-out loss {:.4f} -> {:.4f}\n", *summary.eval_loss_before,
               *summary.eval_loss_after);
  }
  if (summary.interrupted) {
    fmt::print("interrupted: go on with --resume\n");
    return;
  }
  fmt::print(
      "adapter (PEFT)  {0}\nadapter (GGUF)  {0}/adapter.gguf\nlog             "
      "{0}/trainer_log.jsonl\n",
      o.output_dir);
}

int run(FinetuneCommand& c) {
  FinetuneOptions& o = c.options;
  c.machine.apply();
  o.lora.alpha = c.alpha.value_or(static_cast<double>(o.lora.rank));
  o.resume = o.resume || !o.resume_from.empty();
  model::parse_targets(c.targets, o.lora);
  if (o.output_dir.empty() && !c.dry_run && c.dump_batches.empty()) {
    fail(StatusCode::kInvalidArgument, "--output-dir is required");
  }
  Console console;
  train::Setup setup(o);
  for (const std::string& line : setup.describe()) {
    console.info(line);
  }
  if (!c.dump_batches.empty()) {
    train::dump_batches(setup, c.dump_batches);
    return 0;
  }
  if (c.dry_run) {
    train::check_ready(setup);
    formats::Json json = setup.resolved();
    json["threads"] = thread_count();
    fmt::print("{}\n", json.dump(2, ' ', false, formats::Json::error_handler_t::replace));
    return 0;
  }
  install_signal_handlers();
  const train::FinetuneSummary summary = train::finetune(setup, console, g_stop);
  print_summary(o, summary);
  return summary.interrupted ? kInterrupted : 0;
}

}  // namespace

void add_finetune(CLI::App& app, int* exit_code) {
  auto command = std::make_shared<FinetuneCommand>();
  CLI::App* sub = app.add_subcommand("finetune", "QLoRA: train an adapter on a quantised model");
  add_data_flags(*sub, *command);
  add_lora_flags(*sub, *command);
  add_optimizer_flags(*sub, *command);
  add_run_flags(*sub, *command);
  sub->callback([command, exit_code] { *exit_code = run(*command); });
}

}  // namespace nibble::cli
