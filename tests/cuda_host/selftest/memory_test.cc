// SPDX-License-Identifier: Apache-2.0
// Memory: limits, failures, copies, what the host may not do, and what the device says of itself.
#include <cmath>
#include <cstring>

#include "cuda_host/selftest/correct.h"
#include "cuda_host/selftest/planted.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

class Memory : public StandIn {};
class MemoryDeathTest : public StandIn {};

TEST_F(Memory, NewDeviceMemoryIsNotANumber) {
  const DeviceArray<float> memory(10);
  for (const float value : memory.read()) {
    EXPECT_TRUE(std::isnan(value));
  }
}

TEST_F(Memory, LimitCountsWholeGranules) {
  settings().memory = 4096;
  const DeviceArray<char> first(2000);
  EXPECT_EQ(live_device_bytes(), 2048U);
  EXPECT_EQ(live_device_allocations(), 1U);
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  EXPECT_EQ(free_bytes, 2048U);
  EXPECT_EQ(total_bytes, 4096U);
  const DeviceArray<char> too_big(2049);
  EXPECT_EQ(too_big.status(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const DeviceArray<char> fits(2048);
  EXPECT_EQ(fits.status(), cudaSuccess);
  const DeviceArray<char> absurd(~std::size_t{0} - 10);
  EXPECT_EQ(absurd.status(), cudaErrorMemoryAllocation);
}

TEST_F(Memory, EachAllocationCanBeMadeToFail) {
  for (int n = 1; n <= 4; ++n) {
    settings().fail_allocation = n;
    reset();
    int failures = 0;
    for (int i = 1; i <= 4; ++i) {
      void* memory = nullptr;
      const bool pinned = i % 2 == 0;
      const cudaError_t status =
          pinned ? cudaHostAlloc(&memory, 64, cudaHostAllocDefault) : cudaMalloc(&memory, 64);
      EXPECT_EQ(status, i == n ? cudaErrorMemoryAllocation : cudaSuccess);
      EXPECT_EQ(memory == nullptr, i == n);
      failures += status != cudaSuccess ? 1 : 0;
      pinned ? cudaFreeHost(memory) : cudaFree(memory);
    }
    EXPECT_EQ(failures, 1);
  }
}

TEST_F(Memory, PinnedMemoryIsCounted) {
  const PinnedArray<int> pinned(5);
  EXPECT_EQ(live_pinned_allocations(), 1U);
  EXPECT_EQ(live_device_allocations(), 0U);
  cudaPointerAttributes attributes{};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, pinned.get() + 1), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  const DeviceArray<int> device(3);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, device.get()), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_EQ(attributes.devicePointer, device.get());
  const int on_stack = 0;
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, &on_stack), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
}

TEST_F(Memory, KernelsReachPinnedMemory) {
  const PinnedArray<float> pinned(256);
  const std::vector<float> in = ramp(256);
  std::memcpy(pinned.get(), in.data(), 1024);
  const DeviceArray<float> out(256);
  ASSERT_EQ(launch_copy(out.get(), pinned.get(), 256, nullptr), cudaSuccess) << last_message();
  EXPECT_EQ(out.read(), in);
}

TEST_F(Memory, CopiesAndFills) {
  const std::vector<float> in = ramp(100);
  const DeviceArray<float> first(in);
  const DeviceArray<float> second(100);
  ASSERT_EQ(cudaMemcpy(second.get(), first.get(), 400, cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(second.read(), in);
  ASSERT_EQ(cudaMemset(second.get() + 50, 0, 200), cudaSuccess);
  std::vector<float> back(100);
  ASSERT_EQ(cudaMemcpy(back.data(), second.get(), 400, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(back[49], in[49]);
  EXPECT_EQ(back[50], 0.0F);
  std::vector<float> host(100);
  ASSERT_EQ(cudaMemcpy(host.data(), in.data(), 400, cudaMemcpyHostToHost), cudaSuccess);
  EXPECT_EQ(host, in);
}

TEST_F(Memory, WrongCopiesAreRefused) {
  const DeviceArray<float> device(ramp(100));
  std::vector<float> host(200);
  EXPECT_EQ(cudaMemcpy(host.data(), device.get(), 404, cudaMemcpyDeviceToHost),
            cudaErrorInvalidValue);
  EXPECT_SAYS(last_message(), "a copy of 404 bytes");
  EXPECT_SAYS(last_message(), "byte 0 of a device allocation of 400 bytes");
  EXPECT_EQ(cudaMemcpy(device.get() + 99, host.data(), 8, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(device.get(), host.data(), 4, cudaMemcpyDeviceToHost),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), device.get(), 4, cudaMemcpyHostToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(host.data(), 0, 4), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(device.get(), 0, 401), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);  // not sticky
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Memory, OnlyStartsOfAllocationsAreFreed) {
  const DeviceArray<float> device(100);
  EXPECT_EQ(cudaFree(device.get() + 1), cudaErrorInvalidValue);
  float on_host = 0;
  EXPECT_EQ(cudaFree(&on_host), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(device.get()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
}

TEST_F(Memory, GuardedMemoryWorksTheSame) {
  settings().guard = true;
  const std::vector<float> in = ramp(256);
  const DeviceArray<float> device(in);
  const DeviceArray<float> out(256);
  ASSERT_EQ(launch_copy(out.get(), device.get(), 256, nullptr), cudaSuccess);
  EXPECT_EQ(out.read(), in);
}

TEST_F(MemoryDeathTest, TheHostCannotReadDeviceMemory) {
  settings().guard = true;
  const DeviceArray<float> device(ramp(4));
  const volatile float* address = device.get();
  EXPECT_DEATH(static_cast<void>(address[1]),
               kAddressSanitizer ? "use-after-poison"
                                 : "host code touched byte 4 of a device allocation of 16 bytes, "
                                   "which only kernels and copies may");
}

TEST_F(Memory, SharedMemoryAbove48KiBIsAskedFor) {
  const DeviceArray<unsigned> out(32);
  EXPECT_EQ(launch_big_shared(out.get(), 48 << 10, 0, nullptr), cudaSuccess);
  EXPECT_EQ(launch_big_shared(out.get(), (48 << 10) + 4, 0, nullptr), cudaErrorInvalidValue);
  EXPECT_SAYS(last_message(), "cudaFuncSetAttribute");
  EXPECT_EQ(launch_big_shared(out.get(), 64 << 10, 64 << 10, nullptr), cudaSuccess);
  EXPECT_EQ(out.read()[31], 31U);
  EXPECT_EQ(launch_big_shared(out.get(), 64 << 10, 1 << 20, nullptr), cudaErrorInvalidValue);
}

TEST_F(Memory, LaunchesOutsideTheGridsLimitsAreRefused) {
  const DeviceArray<std::uint64_t> out(1);
  for (const dim3& grid : {dim3(0, 1, 1), dim3(1, 0, 1), dim3(0x80000000U, 1, 1), dim3(1, 65536, 1),
                           dim3(1, 1, 65536)}) {
    EXPECT_EQ(launch_indices(out.get(), grid, dim3(1), nullptr), cudaErrorInvalidConfiguration);
  }
  for (const dim3& block : {dim3(0, 1, 1), dim3(1, 1, 65), dim3(32, 33, 1), dim3(1, 1025, 1)}) {
    EXPECT_EQ(launch_indices(out.get(), dim3(1), block, nullptr), cudaErrorInvalidConfiguration);
  }
  EXPECT_EQ(launch_indices(out.get(), dim3(1), dim3(1), nullptr), cudaSuccess);
}

TEST_F(Memory, TheDeviceDescribesItself) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 1);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  cudaDeviceProp properties{};
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_STREQ(properties.name, "nibble CUDA stand-in");
  int processors = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  EXPECT_EQ(processors, properties.multiProcessorCount);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
  EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

TEST_F(Memory, SettingsAreSaidAsTheyAreRead) {
  settings().order = Order::kRandom;
  settings().seed = 12;
  settings().streams = Streams::kLazy;
  EXPECT_EQ(replay_line(),
            "NIBBLE_CUDA_HOST_ORDER=random NIBBLE_CUDA_HOST_SEED=12 NIBBLE_CUDA_HOST_WORKERS=1 "
            "NIBBLE_CUDA_HOST_STREAMS=lazy NIBBLE_CUDA_HOST_MEMORY=1073741824 "
            "NIBBLE_CUDA_HOST_FAIL=0 NIBBLE_CUDA_HOST_GUARD=0");
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
