// SPDX-License-Identifier: Apache-2.0
// nibble generate: a model's answer, with or without an adapter.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>

#include "cli/checks.h"
#include "cli/command.h"
#include "core/status.h"
#include "formats/text_safety.h"
#include "math/philox.h"
#include "model/adapter_io.h"
#include "train/setup.h"

namespace nibble::cli {
namespace {

struct GenerateCommand {
  std::string model, adapter, prompt, system, chat_template;
  std::int64_t max_new_tokens = 256, top_k = 0, logprobs = 0;
  double temperature = 0, top_p = 1;
  std::uint64_t seed = 42;
  bool raw = false;
  MachineOptions machine;
};

std::vector<std::int32_t> prompt_ids(const GenerateCommand& c, const formats::GgufFile& file,
                                     const text::Tokenizer& tokenizer) {
  for (const auto& [flag, text] : {std::pair{"--prompt", &c.prompt}, {"--system", &c.system}}) {
    if (const std::size_t at = formats::find_invalid_utf8(*text); at != std::string::npos) {
      fail(StatusCode::kInvalidArgument, "{}: not UTF-8 at byte {}", flag, at);
    }
  }
  std::vector<std::int32_t> ids;
  if (c.raw) {
    ids = tokenizer.encode_ids(c.prompt, true);
  } else {
    const auto chat = train::chat_template(file, c.chat_template);
    if (!chat) {
      fail(StatusCode::kUnsupported, "{}: has no chat template; give --chat-template or --raw",
           c.model);
    }
    std::vector<text::Message> messages;
    if (!c.system.empty()) {
      messages.push_back({"system", c.system});
    }
    messages.push_back({"user", c.prompt});
    ids = tokenizer.encode_ids(chat->render(messages, true).text, true);
  }
  // As training rows begin.
  if (tokenizer.special().add_bos && (ids.empty() || ids[0] != tokenizer.special().bos)) {
    ids.insert(ids.begin(), tokenizer.special().bos);
  }
  if (ids.empty()) {
    fail(StatusCode::kInvalidArgument, "--prompt gives no token");
  }
  return ids;
}

std::vector<std::int32_t> by_logit(const std::vector<float>& logits, std::int64_t count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::min<std::size_t>(static_cast<std::size_t>(count), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const float x = logits[static_cast<std::size_t>(a)];
                      const float y = logits[static_cast<std::size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  order.resize(n);
  return order;
}

double log_sum_exp(const std::vector<float>& logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - top);
  }
  return top + std::log(sum);
}

int print_logprobs(const std::vector<std::int32_t>& ids, const std::vector<float>& logits,
                   std::int64_t count) {
  const double total = log_sum_exp(logits);
  formats::Json top = formats::Json::array();
  for (const std::int32_t id : by_logit(logits, count)) {
    top.push_back({{"id", id},
                   {"logprob", static_cast<double>(logits[static_cast<std::size_t>(id)]) - total}});
  }
  const formats::Json json{{"ids", ids}, {"top", std::move(top)}};
  fmt::print("{}\n", json.dump());
  return 0;
}

// Greedy at temperature 0; otherwise from the top_k and top_p of the tempered distribution.
std::int32_t pick(const GenerateCommand& c, const std::vector<float>& logits, std::uint64_t step) {
  if (c.temperature <= 0) {
    return by_logit(logits, 1)[0];
  }
  const auto all = static_cast<std::int64_t>(logits.size());
  const auto order = by_logit(logits, c.top_k > 0 ? c.top_k : all);
  const double top = logits[static_cast<std::size_t>(order[0])];
  std::vector<double> weights;
  double sum = 0;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((static_cast<double>(logits[static_cast<std::size_t>(id)]) - top) /
                               c.temperature));
    sum += weights.back();
  }
  double kept = 0;
  std::size_t n = 0;
  while (n < weights.size() && kept < c.top_p * sum) {
    kept += weights[n++];
  }
  const math::RandomStream random{c.seed, 0, 0, math::RandomPurpose::kSampling};
  double left = static_cast<double>(random.uniform(step)) * kept;
  for (std::size_t i = 0; i + 1 < n; ++i) {
    left -= weights[i];
    if (left < 0) {
      return order[i];
    }
  }
  return order[n > 0 ? n - 1 : 0];
}

int run(const GenerateCommand& c) {
  c.machine.apply();
  const formats::GgufFile file{os::Path(c.model)};
  file.check_weights();
  const text::Tokenizer tokenizer(file);
  model::Llama model(file, backend::DType::kF32, false);
  std::optional<model::LoraAdapter> adapter;
  if (!c.adapter.empty()) {
    adapter.emplace(model::load_peft_adapter(c.adapter, model.config()));
  }
  const std::vector<std::int32_t> ids = prompt_ids(c, file, tokenizer);
  const auto prompt = static_cast<std::int64_t>(ids.size());
  if (prompt >= model.config().context) {
    fail(StatusCode::kInvalidArgument, "the prompt's {} tokens do not fit the context of {} of {}",
         prompt, model.config().context, c.model);
  }
  const std::int64_t capacity =
      prompt + std::min(model.config().context - prompt, c.max_new_tokens);
  const auto session = model.start_session(adapter ? &*adapter : nullptr, capacity);
  const std::vector<float>* logits = &session->append(ids);
  if (c.logprobs > 0) {
    return print_logprobs(ids, *logits, c.logprobs);
  }
  std::vector<std::int32_t> answer;
  std::size_t printed = 0;
  for (std::int64_t i = 0; i < capacity - prompt; ++i) {
    const std::int32_t next = pick(c, *logits, static_cast<std::uint64_t>(i));
    if (next == tokenizer.special().eos) {
      break;
    }
    answer.push_back(next);
    const std::string so_far = tokenizer.decode(answer, false);
    std::fwrite(so_far.data() + printed, 1, so_far.size() - printed, stdout);
    std::fflush(stdout);
    printed = so_far.size();
    if (session->position() < capacity) {
      const std::int32_t one[] = {next};
      logits = &session->append(one);
    }
  }
  std::fputc('\n', stdout);
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, int* exit_code) {
  auto c = std::make_shared<GenerateCommand>();
  CLI::App* sub = app.add_subcommand("generate", "a model's answer, with or without an adapter");
  sub->add_option("-m,--model,--model-name-or-path", c->model, "GGUF file")->required();
  sub->add_option("-a,--adapter,--adapter-name-or-path", c->adapter, "PEFT adapter directory");
  sub->add_option("-p,--prompt", c->prompt, "what to answer")->required();
  sub->add_option("-s,--system", c->system, "system message (default: the model's own)");
  sub->add_option("--chat-template,--template", c->chat_template, "instead of the model's own");
  sub->add_flag("--raw", c->raw, "continue the prompt as it is, without a chat template");
  sub->add_option("-n,--max-new-tokens,--max-tokens,--n-predict", c->max_new_tokens, "")
      ->check(positive())
      ->capture_default_str();
  sub->add_option("--temperature,--temp", c->temperature, "0: always the likeliest token")
      ->check(not_negative())
      ->capture_default_str();
  sub->add_option("--top-k", c->top_k, "0: all")->check(not_negative())->capture_default_str();
  sub->add_option("--top-p", c->top_p, "")
      ->check(number_between(0, 1, "in [0, 1]"))
      ->capture_default_str();
  sub->add_option("--seed", c->seed, "")->check(not_negative())->capture_default_str();
  sub->add_option("--logprobs", c->logprobs,
                  "print the N likeliest next tokens as JSON instead of generating")
      ->check(not_negative());
  c->machine.add_to(*sub);
  sub->callback([c, exit_code] { *exit_code = run(*c); });
}

}  // namespace nibble::cli
