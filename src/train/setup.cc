// SPDX-License-Identifier: Apache-2.0
#include "train/setup.h"

#define XXH_INLINE_ALL
#include <nibble/nibble.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "core/status.h"
#include "train/schedule.h"

namespace nibble::train {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

void require(bool condition, const char* flag, const char* what) {
  if (!condition) {
    fail(StatusCode::kInvalidArgument, "{} must be {}", flag, what);
  }
}

const FinetuneOptions& checked(const FinetuneOptions& o) {
  require(o.lora.rank >= 1 && o.lora.rank <= 4096, "--lora-rank", "in 1..4096");
  require(o.lora.alpha > 0 && o.lora.alpha <= 1e6, "--lora-alpha", "in (0, 1e6]");
  require(o.lora.dropout >= 0 && o.lora.dropout < 1, "--lora-dropout", "in [0, 1)");
  require(std::isfinite(o.learning_rate) && o.learning_rate >= 0, "--learning-rate",
          "a number that is not negative");
  require(o.lr_scheduler == "cosine" || o.lr_scheduler == "linear" || o.lr_scheduler == "constant",
          "--lr-scheduler-type", "cosine, linear or constant");
  require(o.warmup_ratio >= 0 && o.warmup_ratio <= 1, "--warmup-ratio", "in [0, 1]");
  require(o.warmup_steps >= -1 && o.warmup_steps <= (std::int64_t{1} << 31), "--warmup-steps",
          "a count, or -1 (by --warmup-ratio)");
  require(std::isfinite(o.max_grad_norm) && o.max_grad_norm >= 0, "--max-grad-norm",
          "a number that is not negative (0: no clipping)");
  require(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "--weight-decay",
          "a number that is not negative");
  require(o.beta1 >= 0 && o.beta1 < 1, "--adam-beta1", "in [0, 1)");
  require(o.beta2 >= 0 && o.beta2 < 1, "--adam-beta2", "in [0, 1)");
  require(std::isfinite(o.epsilon) && o.epsilon > 0, "--adam-epsilon", "a positive number");
  require(find_optimizer(o.optimizer) != nullptr, "--optim", "adamw, adamw_8bit or adamw_4bit");
  require(o.micro_batch_size >= 1 && o.micro_batch_size <= 65536, "--micro-batch-size",
          "in 1..65536");
  require(o.accumulation >= 1 && o.accumulation <= 65536, "--gradient-accumulation-steps",
          "in 1..65536");
  require(o.max_steps >= -1 && o.max_steps <= (std::int64_t{1} << 31), "--max-steps",
          "a count, or -1 (by epochs)");
  require(o.epochs > 0 && o.epochs <= 10000, "--num-train-epochs", "in (0, 10000]");
  require(o.logging_steps >= 1, "--logging-steps", "at least 1");
  require(o.eval_steps >= 0, "--eval-steps", "not negative");
  require(o.save_steps >= 0, "--save-steps", "not negative");
  require(o.save_total_limit >= 1, "--save-total-limit", "at least 1");
  require(std::isfinite(o.val_size) && o.val_size >= 0, "--val-size",
          "a number that is not negative");
  require(o.max_samples == -1 || o.max_samples >= 1, "--max-samples", "a count, or -1 (all)");
  require(o.val_size == 0 || o.eval_dataset.empty(), "--val-size",
          "absent when --eval-dataset is given");
  return o;
}

// What `call` gives; its errors name the flag (or file) that they are of.
template <class Call>
auto named(const std::string& name, const Call& call) {
  try {
    return call();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", name, error.what()));
  }
}

std::string file_hash(const std::string& path) {
  if (path.empty()) {
    return "";
  }
  const os::MappedFile map{os::Path(path)};
  return fmt::format("{:016x}", XXH3_64bits(map.bytes().data(), map.bytes().size()));
}

}  // namespace

std::string report_line(const char* name, const text::DatasetReport& report) {
  std::string line =
      fmt::format("{}: {} rows ({}), {} usable, {} tokens, {} of them targets", name, report.rows,
                  report.format, report.usable, report.tokens, report.targets);
  const auto note = [&](std::int64_t count, const char* what) {
    if (count > 0) {
      line += fmt::format("; {} {}", count, what);
    }
  };
  note(report.no_target, "left out: no token to train on");
  note(report.truncated, "cut at --cutoff-len");
  note(report.double_bos, "with a double BOS, one removed");
  note(report.dropped_bytes, "bytes the vocabulary cannot express, dropped");
  return line;
}

backend::DType compute_dtype(const std::string& name) {
  if (name == "auto") {
    return backend::cpu_has_bf16() ? backend::DType::kBf16 : backend::DType::kF32;
  }
  require(name == "fp32" || name == "bf16", "--compute-dtype", "auto, fp32 or bf16");
  return name == "bf16" ? backend::DType::kBf16 : backend::DType::kF32;
}

std::string instruction_set() {
  const char* name = nibble_isa_name();
  return std::string(name != nullptr ? name : "unknown") + (backend::cpu_has_bf16() ? "+bf16" : "");
}

std::int64_t cutoff_length(std::int64_t asked, std::int64_t context, const std::string& name) {
  constexpr std::int64_t kDefault = 2048;
  if (asked == 0) {
    return std::min(kDefault, context);
  }
  require(asked >= 2, "--cutoff-len", "at least 2");
  if (asked > context) {
    fail(StatusCode::kInvalidArgument,
         "--cutoff-len {} is longer than the context of {} tokens of {}", asked, context, name);
  }
  return asked;
}

std::optional<text::ChatTemplate> chat_template(const formats::GgufFile& file,
                                                const std::string& forced) {
  if (!forced.empty()) {
    return named("--chat-template", [&] { return text::ChatTemplate::family(forced); });
  }
  if (!file.has("tokenizer.chat_template")) {
    return std::nullopt;
  }
  return named(file.name(), [&] {
    return text::ChatTemplate::recognise(file.string("tokenizer.chat_template"));
  });
}

Setup::Setup(const FinetuneOptions& options)
    : options_(checked(options)),
      file_(os::Path(options.model)),
      tokenizer_(file_),
      model_(file_, compute_dtype(options.compute_dtype), options.gradient_checkpointing),
      data_(load_data()),
      plan_(data_.first.examples, options_) {
  file_.check_weights();
}

std::pair<text::Dataset, text::Dataset> Setup::load_data() {
  options_.cutoff_len = cutoff_length(options_.cutoff_len, model_.config().context, options_.model);
  const auto chat = chat_template(file_, options_.chat_template);
  const text::DatasetOptions rows{options_.cutoff_len, options_.train_on_inputs,
                                  options_.max_samples};
  text::Dataset train = text::load_dataset(options_.dataset, tokenizer_, chat, rows);
  if (!options_.eval_dataset.empty()) {
    text::DatasetOptions all = rows;
    all.max_samples = -1;
    return {std::move(train), text::load_dataset(options_.eval_dataset, tokenizer_, chat, all)};
  }
  if (options_.val_size == 0) {
    return {std::move(train), text::Dataset{}};
  }
  auto parts = named("--val-size", [&] {
    return text::split_dataset(std::move(train), options_.val_size, options_.seed);
  });
  if (parts.first.examples.empty()) {
    fail(StatusCode::kInvalidArgument, "--val-size {} leaves no row of {} to train on",
         options_.val_size, options_.dataset);
  }
  return parts;
}

// A bound over every order that the rows can come in.
std::int64_t Setup::largest_pass() const {
  std::int64_t longest = 0, all = 0;
  for (const text::Example& example : train().examples) {
    const auto size = static_cast<std::int64_t>(example.ids.size());
    longest = std::max(longest, size);
    all += size;
  }
  const std::int64_t pack = options_.packing ? std::max(options_.cutoff_len, longest) : longest;
  return std::min(all, options_.micro_batch_size * pack);
}

formats::Json Setup::identity() const {
  formats::Json json = options_.identity();
  json["compute_dtype"] =
      compute_dtype(options_.compute_dtype) == backend::DType::kBf16 ? "bf16" : "fp32";
  json[kInstructionSet] = instruction_set();
  json["model_bytes"] = file_.file_bytes();
  json["model_hash"] = file_hash(options_.model);
  json["dataset_hash"] = file_hash(options_.dataset);
  json["eval_dataset_hash"] = file_hash(options_.eval_dataset);
  return json;
}

formats::Json Setup::resolved() const {
  formats::Json json = options_.all();
  json.update(identity());
  json["warmup_steps"] =
      warmup_steps(options_.warmup_ratio, options_.warmup_steps, plan_.total_steps());
  json["total_steps"] = plan_.total_steps();
  json["memory_bytes"] = memory().total();
  return json;
}

std::vector<std::string> Setup::describe() const {
  const model::LlamaConfig& c = model_.config();
  std::vector<std::string> lines;
  lines.push_back(
      fmt::format("model: {}: {} layers, width {}, {} heads ({} kv), vocabulary {}, "
                  "context {}",
                  options_.model, c.layers, c.width, c.heads, c.kv_heads, c.vocabulary, c.context));
  lines.push_back(report_line("data", train().report));
  if (!eval().examples.empty()) {
    lines.push_back(options_.eval_dataset.empty()
                        ? fmt::format("held out: {} rows", eval().examples.size())
                        : report_line("held out", eval().report));
  }
  const bool bf16 = compute_dtype(options_.compute_dtype) == backend::DType::kBf16;
  lines.push_back(fmt::format(
      "run: {} steps of {} passes of {} {}, LoRA rank {} alpha {:g}, {} with peak learning rate "
      "{:g} ({}, {} warm-up steps), {} products, gradient checkpointing {}",
      plan_.total_steps(), options_.accumulation, options_.micro_batch_size,
      options_.packing ? fmt::format("packs of up to {} tokens", options_.cutoff_len)
                       : std::string("rows"),
      options_.lora.rank, options_.lora.alpha, options_.optimizer, options_.learning_rate,
      options_.lr_scheduler,
      warmup_steps(options_.warmup_ratio, options_.warmup_steps, plan_.total_steps()),
      bf16 ? "bf16" : "fp32", options_.gradient_checkpointing ? "on" : "off"));
  const MemoryEstimate m = memory();
  const auto mib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / kMiB; };
  lines.push_back(
      fmt::format("memory: {:.0f} MiB expected at most: model file {:.0f}, activations "
                  "{:.0f}, adapter {:.0f}, optimizer {:.0f}, program {:.0f}",
                  mib(m.total()), mib(m.model), mib(m.activations), mib(m.adapter),
                  mib(m.optimizer), mib(m.program)));
  return lines;
}

}  // namespace nibble::train
