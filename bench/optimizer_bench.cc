// SPDX-License-Identifier: Apache-2.0
// Optimizer steps through the C API: GB/s of memory traffic, beside memcpy in the same run; and one
// block in L1, for each instruction set. Rows come from the table of formats.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "nibble/nibble.hpp"

namespace {

constexpr std::int64_t kElements = std::int64_t{1} << 25;

void copy_bytes(benchmark::State& state) {
  const std::size_t bytes = kElements * sizeof(float);
  std::vector<char> from(bytes, 1), to(bytes);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(2 * bytes));
}
BENCHMARK(copy_bytes)->UseRealTime()->Unit(benchmark::kMillisecond);

// Weights read and written, gradients read, states read and written; a checked gradient is not read
// a second time.
void adamw_step(benchmark::State& state, const char* format, bool checked) {
  auto desc = nibble::api::make<nibble_optimizer_desc>();
  desc.state_format = format;
  nibble::api::Optimizer optimizer(desc);
  std::vector<float> weights(kElements, 0.5F), grads(kElements);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    grads[i] = static_cast<float>(i * 2654435761U % 65536) * 1e-7F - 3e-3F;
  }
  optimizer.add("w", {kElements}, weights.data());
  const void* all[] = {grads.data()};
  auto step = nibble::api::make<nibble_step_desc>();
  step.grads = all;
  step.n_grads = 1;
  step.grads_are_finite = checked ? 1 : 0;
  for (auto _ : state) {
    nibble::api::check(nibble_optimizer_step(optimizer.get(), &step));
  }
  const auto traffic = static_cast<std::int64_t>(2 * optimizer.info(0).state_bytes) +
                       kElements * (checked ? 12 : 16);
  state.SetBytesProcessed(state.iterations() * traffic);
  state.counters["Gparam/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * kElements) * 1e-9, benchmark::Counter::kIsRate);
}

// One block of the format that stays in L1: the arithmetic alone.
void adamw_block(benchmark::State& state, const nibble::backend::Backend* backend, int format) {
  const auto& info = nibble::math::kFormats[format];
  const std::int64_t block = info.default_block;
  const auto n = static_cast<std::size_t>(block);
  std::vector<float> weights(n, 0.5F), grads(n);
  for (std::size_t i = 0; i < n; ++i) {
    grads[i] = static_cast<float>(i * 37 % 101) * 1e-3F - 5e-2F;
  }
  const auto bytes = static_cast<std::size_t>(info.packed_bytes(block));
  std::vector<std::uint8_t> first(bytes, info.zero_byte(true)),
      second(bytes, info.zero_byte(false));
  float scale[2] = {};
  const nibble::math::RuleInfo& rule = nibble::math::kRules[0];
  double hyper[nibble::math::kMaxHypers] = {};
  for (int i = 0; i < rule.hypers; ++i) {
    hyper[i] = rule.hyper[i].value;
  }
  float terms[nibble::math::kMaxTerms];
  rule.prepare(hyper, 10, terms);
  nibble::backend::StepTask task;
  task.weights.data = reinterpret_cast<std::uint8_t*>(weights.data());
  task.grads = {grads.data(), false};
  task.terms = terms;
  task.block = block;
  task.state[0] = {format, first.data(), &scale[0], {}};
  task.state[1] = {format, second.data(), &scale[1], {}};
  for (auto _ : state) {
    backend->step(task, 0, block);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * block);
}

void register_all() {
  for (int i = 0; i < nibble_format_count(); ++i) {
    const char* format = nibble_format_name(i);
    if (!nibble::math::kFormats[i].for_states || std::string(format) == "int4_rank1") {
      continue;
    }
    for (const bool checked : {false, true}) {
      const std::string name = std::string("adamw_step/") + format + (checked ? "/checked" : "");
      benchmark::RegisterBenchmark(name.c_str(), adamw_step, format, checked)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
    for (const auto* backend : nibble::backend::available_backends()) {
      const std::string name = std::string("adamw_block/") + format + "/" + backend->name;
      benchmark::RegisterBenchmark(name.c_str(), adamw_block, backend, i);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
