// SPDX-License-Identifier: Apache-2.0
// Prints how fast kernels run on the stand-in, in elements per second of one core's time.
#include <cuda_runtime_api.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <vector>

#include "cuda_host/control.h"
#include "cuda_host/selftest/correct.h"

namespace {

constexpr std::int64_t kCount = 1 << 20;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void measure(const char* name, const std::function<void()>& launch) {
  launch();
  const double begin = cpu_seconds();
  int rounds = 0;
  double seconds = 0;
  for (; seconds < 0.5; seconds = cpu_seconds() - begin) {
    launch();
    ++rounds;
  }
  std::printf("  %-34s %8.2f M elements/s\n", name, 1e-6 * kCount * rounds / seconds);
}

template <class T>
T* allocate(std::int64_t count) {
  void* memory = nullptr;
  cudaMalloc(&memory, static_cast<std::size_t>(count) * sizeof(T));
  return static_cast<T*>(memory);
}

}  // namespace

int main() {
  namespace host = nibble::cuda_host;
  auto* values = allocate<float>(kCount);
  auto* codes = allocate<std::int8_t>(kCount);
  auto* scales = allocate<float>(kCount / 256);
  std::vector<float> start(kCount);
  for (std::size_t i = 0; i < start.size(); ++i) {
    start[i] = static_cast<float>(i % 1001) - 500;
  }
  cudaMemcpy(values, start.data(), kCount * sizeof(float), cudaMemcpyHostToDevice);
  for (const host::Order order : {host::Order::kInOrder, host::Order::kRandom}) {
    host::settings().order = order;
    std::printf("%s\n", host::replay_line().c_str());
    measure("quantise, 1 element a thread",
            [&] { host::selftest::launch_quantize(values, codes, scales, kCount, 1, nullptr); });
    measure("quantise, 8 elements a thread",
            [&] { host::selftest::launch_quantize(values, codes, scales, kCount, 8, nullptr); });
    measure("dequantise (no barrier)",
            [&] { host::selftest::launch_dequantize(codes, scales, values, kCount, nullptr); });
  }
  std::printf("%s\n", host::last_message().c_str());
  return 0;
}
