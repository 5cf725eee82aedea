// SPDX-License-Identifier: Apache-2.0
#include "train/finetune.h"

#include <algorithm>
#include <cmath>

#include "core/status.h"
#include "model/adapter_io.h"
#include "os/system.h"
#include "train/checkpoints.h"
#include "train/log.h"
#include "train/optimizer.h"
#include "train/output_directory.h"
#include "train/schedule.h"

namespace nibble::train {
namespace {

constexpr std::int64_t kMaxSkippedInARow = 10;

// What a step's examples add up to.
struct StepBatches {
  std::vector<text::Batch> passes;
  std::int64_t targets = 0, tokens = 0;
};

StepBatches gather(const std::vector<text::Example>& examples, const Step& step) {
  StepBatches result;
  for (const auto& indices : step.micro_batches) {
    std::vector<const text::Example*> group;
    group.reserve(indices.size());
    for (const std::int64_t index : indices) {
      group.push_back(&examples[static_cast<std::size_t>(index)]);
    }
    const text::Batch& batch = result.passes.emplace_back(text::make_batch(group));
    result.targets += batch.target_count();
    result.tokens += batch.tokens();
  }
  return result;
}

class Run {
 public:
  Run(Setup& setup, const os::Path& output, Reporter& reporter, const std::atomic<bool>& stop)
      : setup_(setup),
        options_(setup.options()),
        reporter_(reporter),
        stop_(stop),
        output_(output),
        log_(output_ / kLogName),
        adapter_(setup.model().config(), options_.lora, options_.seed),
        optimizer_(adapter_, options_),
        checkpoints_(output_, setup.identity(), base_model_name()),
        total_(setup.plan().total_steps()),
        warmup_(warmup_steps(options_.warmup_ratio, options_.warmup_steps, total_)) {}

  FinetuneSummary run() {
    begin();
    while (state_.step < total_) {
      if (stop_) {
        save();
        summary_.interrupted = true;
        return finish();
      }
      step();
    }
    check_outcome();
    write_adapter();
    return finish();
  }

 private:
  std::string base_model_name() const {
    return std::string(setup_.file().string_or("general.name", ""));
  }

  // Neither a checkpoint nor the adapter is written with what nobody could load.
  void require_finite_adapter() const {
    if (const model::LoraPair* pair = adapter_.non_finite(); pair != nullptr) {
      fail(StatusCode::kNonFinite,
           "{}: step {}: values of the adapter ({}) are not finite: nothing was written; lower "
           "--learning-rate",
           output_.string(), state_.step, pair->gguf_name());
    }
  }

  // A run whose end is not a number must not look like a success.
  void check_outcome() const {
    require_finite_adapter();
    if (state_.skipped_in_a_row > 0 ||
        (summary_.eval_loss_after && !std::isfinite(*summary_.eval_loss_after))) {
      fail(StatusCode::kNonFinite,
           "{}: the run ended with gradients or a loss that are not finite: no adapter was "
           "written; lower --learning-rate",
           output_.string());
    }
  }

  // Continues a checkpoint, or measures what the first step starts from.
  void begin() {
    if (options_.resume) {
      const auto restored =
          checkpoints_.restore(options_.resume_from, setup_.model().config(), adapter_, optimizer_,
                               [&](const std::string& line) { reporter_.warn(line); });
      if (restored) {
        state_ = *restored;
        if (options_.newest_checkpoint()) {
          saved_step_ = state_.step;
        }
        log_.rewind(state_.step);
        reporter_.info(fmt::format("resumed after step {} of {}", state_.step, total_));
        return;
      }
      if (Checkpoints::any(output_)) {
        fail(StatusCode::kCorrupt, "{}: none of its checkpoints is whole", output_.string());
      }
      OutputDirectory::refuse_foreign_files(output_, options_);
      reporter_.info("no checkpoint to resume from: starting at step 0");
    }
    log_.rewind(-1);
    LogEntry entry = log_entry();
    entry.eval_loss = summary_.eval_loss_before = held_out_loss();
    entry.lr =
        options_.learning_rate * learning_rate_factor(options_.lr_scheduler, 0, warmup_, total_);
    append(entry);
  }

  std::optional<double> held_out_loss() {
    if (setup_.eval().examples.empty()) {
      return std::nullopt;
    }
    const double loss = evaluate(setup_.model(), setup_.eval().examples, &adapter_).loss();
    reporter_.info(fmt::format("step {}: held-out loss {:.4f}", state_.step, loss));
    return loss;
  }

  void step() {
    const double begin = os::monotonic_seconds();
    const Step plan = setup_.plan().step(state_.step);
    const StepBatches batches = gather(setup_.train().examples, plan);
    const double loss = accumulate(plan, batches);
    const double rate = options_.learning_rate *
                        learning_rate_factor(options_.lr_scheduler, state_.step, warmup_, total_);
    const Optimizer::StepResult result = optimizer_.step(rate, options_.max_grad_norm);
    adapter_.refresh();
    ++state_.step;
    state_.total_tokens += batches.tokens;
    state_.training_seconds += os::monotonic_seconds() - begin;
    epoch_ = plan.epoch;
    note_non_finite(result.non_finite);
    if (result.non_finite == 0) {
      state_.loss_sum += loss;
      ++state_.loss_steps;
    }
    report(loss, rate, result.grad_norm);
  }

  // Gradients of the mean loss over all target tokens of the step.
  double accumulate(const Step& plan, const StepBatches& batches) {
    adapter_.zero_grad();
    model::TrainPass pass;
    pass.scale = 1.0F / static_cast<float>(std::max<std::int64_t>(1, batches.targets));
    pass.seed = options_.seed;
    pass.micro_step = plan.first_micro_step;
    double sum = 0;
    for (const text::Batch& batch : batches.passes) {
      sum += setup_.model().loss_and_grad({batch.ids, batch.targets, batch.starts}, adapter_, pass);
      ++pass.micro_step;
    }
    return sum / static_cast<double>(std::max<std::int64_t>(1, batches.targets));
  }

  void note_non_finite(std::int64_t count) {
    if (count == 0) {
      state_.skipped_in_a_row = 0;
      return;
    }
    reporter_.warn(
        fmt::format("step {}: {} gradients are not finite: step skipped", state_.step, count));
    if (++state_.skipped_in_a_row >= kMaxSkippedInARow) {
      fail(StatusCode::kNonFinite,
           "step {}: gradients were not finite {} steps in a row; lower "
           "--learning-rate, or use --compute-dtype fp32",
           state_.step, kMaxSkippedInARow);
    }
  }

  // Log line, held-out loss and checkpoint, where they are due.
  void report(double loss, double rate, double grad_norm) {
    const auto due = [&](std::int64_t every) { return every > 0 && state_.step % every == 0; };
    const bool last = state_.step == total_;
    const bool evaluated = last || due(options_.eval_steps);
    const bool logged = evaluated || due(options_.logging_steps);
    LogEntry entry = log_entry();
    reporter_.progress({state_.step, total_, loss, rate, grad_norm, entry.throughput,
                        entry.remaining_seconds, os::peak_resident_bytes(), logged});
    if (logged) {
      if (state_.loss_steps > 0) {
        entry.loss = state_.loss_sum / static_cast<double>(state_.loss_steps);
      }
      entry.lr = rate;
      entry.grad_norm = grad_norm;
      if (evaluated) {
        entry.eval_loss = held_out_loss();
        if (last) {
          summary_.eval_loss_after = entry.eval_loss;
        }
      }
      append(entry);
      state_.loss_sum = 0;
      state_.loss_steps = 0;
    }
    if (last || due(options_.save_steps)) {
      save();
    }
  }

  // A whole checkpoint is never written again: for a moment there would be none.
  void save() {
    if (saved_step_ == state_.step) {
      return;
    }
    require_finite_adapter();
    checkpoints_.save(state_, adapter_, setup_.model().config(), optimizer_,
                      options_.save_total_limit);
    saved_step_ = state_.step;
  }

  LogEntry log_entry() const {
    LogEntry entry;
    entry.current_steps = state_.step;
    entry.total_steps = total_;
    entry.epoch = epoch_;
    entry.elapsed_seconds = state_.training_seconds;
    entry.remaining_seconds = state_.step > 0 ? state_.training_seconds *
                                                    static_cast<double>(total_ - state_.step) /
                                                    static_cast<double>(state_.step)
                                              : 0;
    entry.throughput = state_.training_seconds > 0
                           ? static_cast<double>(state_.total_tokens) / state_.training_seconds
                           : 0;
    entry.total_tokens = state_.total_tokens;
    return entry;
  }

  void append(const LogEntry& entry) {
    if (!log_.append(entry)) {
      reporter_.warn(
          fmt::format("{}: cannot write; the run goes on", (output_ / kLogName).string()));
    }
  }

  // adapter_config.json comes last: a directory that has it has the whole adapter.
  void write_adapter() {
    const model::PeftTensors tensors(adapter_, setup_.model().config());
    formats::write_safetensors(output_ / "adapter_model.safetensors", tensors.list(),
                               {{"format", "pt"}});
    model::write_lora_gguf(output_ / "adapter.gguf", adapter_, setup_.file());
    os::write_file(output_ / "adapter_config.json",
                   model::peft_config(options_.lora, base_model_name()).dump(2) + "\n");
  }

  FinetuneSummary finish() {
    summary_.steps = state_.step;
    summary_.total_tokens = state_.total_tokens;
    summary_.training_seconds = state_.training_seconds;
    return summary_;
  }

  Setup& setup_;
  const FinetuneOptions& options_;
  Reporter& reporter_;
  const std::atomic<bool>& stop_;
  os::Path output_;
  TrainLog log_;
  model::LoraAdapter adapter_;
  Optimizer optimizer_;
  Checkpoints checkpoints_;
  std::int64_t total_, warmup_;
  RunState state_;
  std::int64_t saved_step_ = -1;  // of the newest checkpoint that this run wrote or came from
  double epoch_ = 0;
  FinetuneSummary summary_;
};

}  // namespace

FinetuneSummary finetune(Setup& setup, Reporter& reporter, const std::atomic<bool>& stop) {
  check_memory(setup);  // before the run takes any, and before it makes a directory
  const OutputDirectory output(setup.options());
  return Run(setup, output.path(), reporter, stop).run();
}

void check_ready(const Setup& setup) {
  check_memory(setup);
  if (!setup.options().output_dir.empty()) {
    OutputDirectory::check(setup.options());
  }
}

}  // namespace nibble::train
