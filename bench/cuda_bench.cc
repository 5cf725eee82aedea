// SPDX-License-Identifier: Apache-2.0
// Steps on a CUDA device against its own copy bandwidth. Prints a JSON list; used by tests/gpu.sh.
//
//   cuda_bench [elements]     default 1e8
//
// Every figure is a median of paired rounds: a step and a copy of device memory after one another.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/nibble.hpp"

namespace {

namespace api = nibble::api;

constexpr int kRounds = 15;
constexpr int kInner = 5;

void check(cudaError_t error) {
  if (error != cudaSuccess) {
    throw std::runtime_error(cudaGetErrorString(error));
  }
}

// Signed values over some decades, as gradients have them; zeros would be the easiest case.
std::vector<float> values(std::uint32_t seed, std::size_t count) {
  std::vector<float> out(std::min<std::size_t>(count, 1 << 20));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& x : out) {
    x = normal(random) * std::exp(normal(random) - 6.0F);
  }
  return out;
}

class Memory {
 public:
  explicit Memory(std::size_t bytes) { check(cudaMalloc(&data_, bytes)); }
  // Filled with values, over and over.
  Memory(std::size_t elements, bool is_bf16, std::uint32_t seed)
      : Memory(elements * (is_bf16 ? 2 : 4)) {
    const std::vector<float> from = values(seed, elements);
    std::vector<std::uint16_t> upper;
    for (const float x : from) {
      upper.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16));
    }
    const std::size_t each = is_bf16 ? 2 : 4;
    const void* source = is_bf16 ? static_cast<const void*>(upper.data()) : from.data();
    for (std::size_t i = 0; i < elements; i += from.size()) {
      check(cudaMemcpy(static_cast<char*>(data_) + i * each, source,
                       std::min(from.size(), elements - i) * each, cudaMemcpyHostToDevice));
    }
  }
  ~Memory() { static_cast<void>(cudaFree(data_)); }
  Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Memory& operator=(Memory&&) = delete;
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

// Seconds of one call of `work`, on average over a few.
double seconds(const std::function<void()>& work) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  check(cudaEventRecord(begin, nullptr));
  for (int i = 0; i < kInner; ++i) {
    work();
  }
  check(cudaEventRecord(end, nullptr));
  check(cudaEventSynchronize(end));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end));
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return milliseconds / 1e3 / kInner;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Work {
  std::string name;
  const char* format;
  const char* weights;
  std::int64_t elements;
  std::int64_t tensors;
  double bytes_each;       // moved for an element: weights and states twice, the gradient once
  bool is_trusted = true;  // the caller warrants finite gradients: the fused pass alone
  double max_norm = 0;     // else each gradient is read once more, for its norm or its check
};

void measure(const Work& work, bool& first) {
  auto desc = api::make<nibble_optimizer_desc>();
  desc.device = "cuda";
  desc.state_format = work.format;
  desc.weight_format = work.weights;
  desc.min_quantized_elements = 1;
  api::Optimizer optimizer(desc);
  std::vector<Memory> weights, grads;
  std::vector<const void*> pointers;
  const bool is_bf16 = std::string_view(work.weights).starts_with("bf16");
  for (std::int64_t i = 0; i < work.tensors; ++i) {
    const auto n = static_cast<std::size_t>(work.elements);
    weights.emplace_back(n, is_bf16, 1);
    grads.emplace_back(n, is_bf16, static_cast<std::uint32_t>(i + 2));
    optimizer.add("w" + std::to_string(i), {work.elements}, weights.back().get());
    pointers.push_back(grads.back().get());
  }
  const double total = static_cast<double>(work.elements) * static_cast<double>(work.tensors);
  const auto copy_bytes = static_cast<std::size_t>(total * 4);
  const Memory from(copy_bytes), to(copy_bytes);
  auto step_desc = api::make<nibble_step_desc>();
  step_desc.grads = pointers.data(), step_desc.n_grads = work.tensors;
  step_desc.grads_are_finite = work.is_trusted ? 1 : 0;
  step_desc.max_grad_norm = work.max_norm;
  const auto step = [&] { optimizer.step(step_desc); };
  const auto copy = [&] {
    check(cudaMemcpyAsync(to.get(), from.get(), copy_bytes, cudaMemcpyDeviceToDevice, nullptr));
  };
  seconds(step), seconds(copy);
  std::vector<double> steps, copies, ratios;
  for (int round = 0; round < kRounds; ++round) {
    steps.push_back(seconds(step));
    copies.push_back(seconds(copy));
    const double bandwidth = total * work.bytes_each / steps.back();
    ratios.push_back(bandwidth / (2.0 * static_cast<double>(copy_bytes) / copies.back()));
  }
  std::printf(
      "%s{\"work\": \"%s\", \"elements\": %.0f, \"tensors\": %lld, \"ms\": %.4f, "
      "\"GB/s\": %.1f, \"copy GB/s\": %.1f, \"of copy\": %.3f}",
      first ? "" : ",\n ", work.name.c_str(), total, static_cast<long long>(work.tensors),
      median(steps) * 1e3, total * work.bytes_each / median(steps) / 1e9,
      2.0 * static_cast<double>(copy_bytes) / median(copies) / 1e9, median(ratios));
  first = false;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto n = static_cast<std::int64_t>(argc > 1 ? std::atof(argv[1]) : 1e8);
  const double int8 = 4 * (1 + 4.0 / 256), int4 = 2 * (1 + 2.0 / 128 * 4);
  bool first = true;
  std::printf("[");
  for (const Work& work :
       {Work{"adamw fp32", "fp32", "fp32", n, 1, 12 + 16},
        {"adamw int8", "int8", "fp32", n, 1, 12 + int8},
        {"adamw int8, gradients checked", "int8", "fp32", n, 1, 16 + int8, false},
        {"adamw int8, clipped", "int8", "fp32", n, 1, 16 + int8, false, 1.0},
        {"adamw int4", "int4", "fp32", n, 1, 12 + int4},
        {"adamw fp8", "fp8", "fp32", n, 1, 12 + int8},
        {"adamw int8, bf16 stochastic", "int8", "bf16_stochastic", n, 1, 6 + int8},
        {"adamw int8, 2000 tensors of 1000", "int8", "fp32", 1000, 2000, 12 + int8},
        {"adamw int8, one of 2000000", "int8", "fp32", 2000000, 1, 12 + int8}}) {
    measure(work, first);
  }
  std::printf("]\n");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "cuda_bench: %s\n", error.what());
  return 1;
}
