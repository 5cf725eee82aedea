// SPDX-License-Identifier: Apache-2.0
// Training speed on a real model: tokens per second of a forward and backward pass with LoRA on all
// linear layers, and the share of the processor's peak that its products reach, measured in the
// same rounds (bench/README.md).
//   train_bench MODEL.gguf [ROUNDS]
#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "core/parallel.h"
#include "core/status.h"
#include "formats/gguf.h"
#include "model/llama.h"
#include "os/system.h"

namespace {

using namespace nibble;  // NOLINT(google-build-using-namespace): a program of one file
using backend::DType;

constexpr std::int64_t kSequences = 4, kLength = 256, kTokens = kSequences * kLength;
constexpr int kChains = 16;  // independent accumulators, enough to fill the pipelines

// Multiply-adds that touch no memory: what the vector units can do at most.
__attribute__((target("avx512f"))) float peak_f32_loop(std::int64_t count) {
  __m512 sums[kChains];
  const __m512 x = _mm512_set1_ps(1.000001F), y = _mm512_set1_ps(1e-9F);
  for (auto& sum : sums) {
    sum = y;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (auto& sum : sums) {
      sum = _mm512_fmadd_ps(sum, x, y);
    }
  }
  float lanes[16];  // of the first; the others only have to be computed
  for (int i = 1; i < kChains; ++i) {
    sums[0] = _mm512_add_ps(sums[0], sums[i]);
  }
  _mm512_storeu_ps(lanes, sums[0]);
  return lanes[0];
}

__attribute__((target("avx512f,avx512bf16"))) float peak_bf16_loop(std::int64_t count) {
  __m512 sums[kChains];
  __m512bh x, y;
  std::fill_n(reinterpret_cast<std::uint16_t*>(&x), 32, std::uint16_t{0x3f80});
  std::fill_n(reinterpret_cast<std::uint16_t*>(&y), 32, std::uint16_t{0x2000});
  for (auto& sum : sums) {
    sum = _mm512_setzero_ps();
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, x, y);
    }
  }
  float lanes[16];  // of the first; the others only have to be computed
  for (int i = 1; i < kChains; ++i) {
    sums[0] = _mm512_add_ps(sums[0], sums[i]);
  }
  _mm512_storeu_ps(lanes, sums[0]);
  return lanes[0];
}

double seconds_of(const std::function<void()>& body) {
  const double begin = os::monotonic_seconds();
  body();
  return os::monotonic_seconds() - begin;
}

// GFLOP/s of all threads; 0 where the instructions are missing.
double peak(DType act) {
  if (__builtin_cpu_supports("avx512f") == 0 || (act == DType::kBf16 && !backend::cpu_has_bf16())) {
    return 0;
  }
  constexpr std::int64_t kLoops = 4'000'000;
  const double per_loop = kChains * (act == DType::kF32 ? 32.0 : 64.0);
  volatile float sink = 0;
  const double seconds = seconds_of([&] {
    parallel_for(thread_count(), [&](std::int64_t) {
      sink = act == DType::kF32 ? peak_f32_loop(kLoops) : peak_bf16_loop(kLoops);
    });
  });
  return per_loop * kLoops * thread_count() / seconds / 1e9;
}

// Operations of the products of one pass: forward and input gradient of every frozen matrix, three
// products for each LoRA matrix. Attention is not counted.
double pass_flops(const model::LlamaConfig& c, std::int64_t rank) {
  double frozen = static_cast<double>(c.width) * static_cast<double>(c.vocabulary);
  double adapted = 0;
  for (int i = 0; i < model::kLinears; ++i) {
    const auto which = static_cast<model::Linear>(i);
    const auto in = static_cast<double>(model::linear_inputs(c, which));
    const auto out = static_cast<double>(model::linear_outputs(c, which));
    frozen += static_cast<double>(c.layers) * in * out;
    adapted += static_cast<double>(c.layers * rank) * (in + out);
  }
  return static_cast<double>(kTokens) * (2 * 2 * frozen + 3 * 2 * adapted);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(const formats::GgufFile& file, DType act, bool checkpointing, int rounds) {
  model::Llama model(file, act, checkpointing);
  model::LoraConfig config;
  model::LoraAdapter adapter(model.config(), config, 1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(kTokens)), targets(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] =
        static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(model.config().vocabulary));
    targets[i] = ids[(i + 1) % ids.size()];
  }
  std::vector<std::int64_t> starts;
  for (std::int64_t s = 0; s <= kSequences; ++s) {
    starts.push_back(s * kLength);
  }
  const auto pass = [&] { model.loss_and_grad({ids, targets, starts}, adapter, {1.0F / kTokens}); };
  pass();
  pass();
  std::vector<double> speeds, shares, peaks;
  for (int i = 0; i < rounds; ++i) {
    const double best = peak(act);
    const double seconds = seconds_of(pass);
    speeds.push_back(kTokens / seconds);
    peaks.push_back(best);
    shares.push_back(best > 0 ? pass_flops(model.config(), config.rank) / seconds / 1e9 / best : 0);
  }
  const auto [low, high] = std::minmax_element(speeds.begin(), speeds.end());
  fmt::print(
      "{:<5} checkpointing {:<3}  {:>6.0f} tokens/s ({:.0f} .. {:.0f})  products {:>4.0f} % of "
      "{:.0f} GFLOP/s\n",
      act == DType::kF32 ? "fp32" : "bf16", checkpointing ? "on" : "off", median(speeds), *low,
      *high, 100 * median(shares), median(peaks));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: train_bench MODEL.gguf [ROUNDS]\n");
    return 2;
  }
  try {
    const formats::GgufFile file{os::Path(argv[1])};
    const int rounds = argc > 2 ? std::max(1, std::stoi(argv[2])) : 9;
    fmt::print(
        "{} threads, {} x {} tokens, LoRA rank 16 on all linear layers, medians of {} "
        "rounds\n",
        thread_count(), kSequences, kLength, rounds);
    for (const bool checkpointing : {false, true}) {
      run(file, DType::kF32, checkpointing, rounds);
      if (backend::cpu_has_bf16()) {
        run(file, DType::kBf16, checkpointing, rounds);
      }
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_bench: {}\n", error.what());
    return 1;
  }
}
