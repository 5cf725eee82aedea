// SPDX-License-Identifier: Apache-2.0
// nibble eval: mean loss and perplexity of a dataset or a text.
#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "core/status.h"
#include "formats/text_safety.h"
#include "model/adapter_io.h"
#include "train/evaluate.h"
#include "train/setup.h"

namespace nibble::cli {
namespace {

constexpr std::uint64_t kMaxTextBytes = 1ULL << 30;

struct EvalCommand {
  std::string model, adapter, dataset, file, chat_template;
  std::int64_t cutoff_len = 0, max_samples = -1;
  bool train_on_inputs = false, json = false;
  MachineOptions machine;
};

std::vector<text::Example> examples(const EvalCommand& c, const formats::GgufFile& file,
                                    const text::Tokenizer& tokenizer) {
  if (!c.dataset.empty()) {
    text::Dataset data =
        text::load_dataset(c.dataset, tokenizer, train::chat_template(file, c.chat_template),
                           {c.cutoff_len, c.train_on_inputs, c.max_samples});
    fmt::print(stderr, "{}\n", train::report_line("data", data.report));
    return std::move(data.examples);
  }
  const std::string content = os::read_file(c.file, kMaxTextBytes);
  if (const std::size_t at = formats::find_invalid_utf8(content); at != std::string::npos) {
    fail(StatusCode::kCorrupt, "{}: not UTF-8 at byte {}", c.file, at);
  }
  const std::vector<std::int32_t> ids = tokenizer.encode_ids(content, false);
  std::vector<text::Example> windows = train::text_windows(ids, c.cutoff_len);
  if (windows.empty()) {
    fail(StatusCode::kInvalidArgument, "{}: {} tokens; at least 2 are needed", c.file, ids.size());
  }
  return windows;
}

int run(EvalCommand& c) {
  c.machine.apply();
  const formats::GgufFile file{os::Path(c.model)};
  file.check_weights();
  const text::Tokenizer tokenizer(file);
  model::Llama model(file, backend::DType::kF32, false);
  c.cutoff_len = train::cutoff_length(c.cutoff_len, model.config().context, c.model);
  std::optional<model::LoraAdapter> adapter;
  if (!c.adapter.empty()) {
    adapter.emplace(model::load_peft_adapter(c.adapter, model.config()));
  }
  const train::Evaluation result =
      train::evaluate(model, examples(c, file, tokenizer), adapter ? &*adapter : nullptr);
  if (!std::isfinite(result.loss())) {
    fail(StatusCode::kNonFinite, "{}: the loss of {} is not finite",
         c.dataset.empty() ? c.file : c.dataset, c.adapter.empty() ? c.model : c.adapter);
  }
  if (c.json) {
    const formats::Json json{{"loss", result.loss()},
                             {"perplexity", result.perplexity()},
                             {"targets", result.targets},
                             {"tokens", result.tokens}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("loss {:.6f}  perplexity {:.4f}  ({} targets of {} tokens)\n", result.loss(),
               result.perplexity(), result.targets, result.tokens);
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, int* exit_code) {
  auto c = std::make_shared<EvalCommand>();
  CLI::App* sub = app.add_subcommand("eval", "mean loss and perplexity of a dataset or a text");
  sub->add_option("-m,--model,--model-name-or-path", c->model, "GGUF file")->required();
  sub->add_option("-a,--adapter,--adapter-name-or-path", c->adapter, "PEFT adapter directory");
  auto* data = sub->add_option("-d,--dataset,--data", c->dataset, "JSONL, as for finetune");
  auto* text = sub->add_option("-f,--file", c->file,
                               "plain text: every token but the first of a window is a target");
  data->excludes(text);
  sub->add_option("-c,--cutoff-len,--max-seq-length,--max-length,--sequence-len", c->cutoff_len,
                  "longest row; window of a text (default: 2048, or the model's context)");
  sub->add_option("--max-samples", c->max_samples, "use the first rows only");
  sub->add_flag("--train-on-inputs,--train-on-prompt", c->train_on_inputs,
                "prompts count in the loss too");
  sub->add_option("--chat-template,--template", c->chat_template, "instead of the model's own");
  sub->add_flag("--json", c->json, "print one JSON object");
  c->machine.add_to(*sub);
  sub->callback([c, exit_code] {
    if (c->dataset.empty() && c->file.empty()) {
      fail(StatusCode::kInvalidArgument, "one of --dataset and --file is required");
    }
    *exit_code = run(*c);
  });
}

}  // namespace nibble::cli
