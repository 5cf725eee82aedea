// SPDX-License-Identifier: Apache-2.0
// Streams and events: correct programs give the same results in every order that CUDA allows.
#include <cstring>
#include <thread>

#include "cuda_host/selftest/correct.h"
#include "cuda_host/selftest/planted.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

constexpr std::uint64_t kSeeds = 20;

class Stream : public StandIn {
 protected:
  static void be_lazy(std::uint64_t seed) {
    settings().streams = Streams::kLazy;
    settings().seed = seed;
    reset();
  }
};

TEST_F(Stream, LazyWorkWaitsForASynchronisation) {
  be_lazy(1);
  const OwnStream stream;
  const DeviceArray<float> cell(std::vector<float>{1});
  const PinnedArray<float> back(1);
  back[0] = -1;
  ASSERT_EQ(launch_fused(cell.get(), 2, stream), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(back.get(), cell.get(), 4, cudaMemcpyDeviceToHost, stream),
            cudaSuccess);
  EXPECT_EQ(back[0], -1);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(back[0], 3);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
}

TEST_F(Stream, PollingComesToAnEnd) {
  be_lazy(1);
  const OwnStream stream;
  const OwnEvent event;
  const DeviceArray<float> cell(std::vector<float>{1});
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(launch_fused(cell.get(), 2, stream), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
  while (cudaStreamQuery(stream) == cudaErrorNotReady) {
  }
  EXPECT_EQ(cell.read()[0], 15);
  ASSERT_EQ(launch_fused(cell.get(), 2, stream), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  while (cudaEventQuery(event) == cudaErrorNotReady) {
  }
  EXPECT_EQ(cell.read()[0], 31);
}

TEST_F(Stream, WaitingForAnEventOrdersStreams) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    be_lazy(seed);
    const OwnStream producer;
    const OwnStream consumer;
    const OwnEvent event;
    const DeviceArray<float> cell(std::vector<float>{1});
    const PinnedArray<float> back(1);
    launch_fused(cell.get(), 2, producer);
    cudaEventRecord(event, producer);
    cudaStreamWaitEvent(consumer, event, 0);
    cudaMemcpyAsync(back.get(), cell.get(), 4, cudaMemcpyDeviceToHost, consumer);
    ASSERT_EQ(cudaStreamSynchronize(consumer), cudaSuccess);
    EXPECT_EQ(back[0], 3) << replay_line();
  }
}

TEST_F(Stream, AWaitIsForTheRecordBeforeIt) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    be_lazy(seed);
    const OwnStream producer;
    const OwnStream consumer;
    const OwnEvent event;
    cudaStreamWaitEvent(consumer, event, 0);  // never recorded: no wait
    const DeviceArray<float> cell(std::vector<float>{1});
    launch_fused(cell.get(), 2, producer);
    cudaEventRecord(event, producer);
    cudaStreamWaitEvent(consumer, event, 0);
    launch_fused(cell.get(), 3, consumer);  // 10
    cudaEventRecord(event, consumer);
    cudaStreamWaitEvent(producer, event, 0);
    launch_fused(cell.get(), 5, producer);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cell.read()[0], 51) << replay_line();
  }
}

TEST_F(Stream, TheDefaultStreamWaitsForBlockingStreamsAndTheyForIt) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    be_lazy(seed);
    cudaStream_t blocking = nullptr;
    ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
    const DeviceArray<float> cell(std::vector<float>{1});
    launch_fused(cell.get(), 2, blocking);  // 3
    launch_fused(cell.get(), 3, nullptr);   // 10
    launch_fused(cell.get(), 5, blocking);  // 51
    ASSERT_EQ(cudaStreamSynchronize(blocking), cudaSuccess);
    EXPECT_EQ(cell.read()[0], 51) << replay_line();
    EXPECT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(blocking), cudaErrorInvalidResourceHandle);
  }
}

TEST_F(Stream, WorkOfADestroyedStreamStillRuns) {
  be_lazy(3);
  const DeviceArray<float> cell(std::vector<float>{1});
  {
    const OwnStream stream;
    launch_fused(cell.get(), 2, stream);
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(cell.read()[0], 3);
}

TEST_F(Stream, PageableMemoryIsCopiedBeforeTheCallReturns) {
  be_lazy(1);
  const OwnStream stream;
  const DeviceArray<float> cell(1);
  float value = 5;
  ASSERT_EQ(cudaMemcpyAsync(cell.get(), &value, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  value = 6;
  float back = 0;
  ASSERT_EQ(cudaMemcpyAsync(&back, cell.get(), 4, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(back, 5);
}

TEST_F(Stream, HostFunctionsRunInTheirPlace) {
  be_lazy(2);
  const OwnStream stream;
  const PinnedArray<float> value(1);
  const DeviceArray<float> cell(1);
  value[0] = 1;
  ASSERT_EQ(cudaLaunchHostFunc(
                stream, [](void* data) { *static_cast<float*>(data) = 7; }, value.get()),
            cudaSuccess);
  cudaMemcpyAsync(cell.get(), value.get(), 4, cudaMemcpyHostToDevice, stream);
  EXPECT_EQ(value[0], 1);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(cell.read()[0], 7);
}

TEST_F(Stream, HostFunctionsMayNotCallTheRuntime) {
  cudaError_t seen = cudaSuccess;
  ASSERT_EQ(
      cudaLaunchHostFunc(
          nullptr, [](void* data) { *static_cast<cudaError_t*>(data) = cudaDeviceSynchronize(); },
          &seen),
      cudaSuccess);
  EXPECT_EQ(seen, cudaErrorNotPermitted);
}

TEST_F(Stream, ElapsedTime) {
  const OwnEvent begin;
  const OwnEvent end;
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorInvalidResourceHandle);
  be_lazy(1);
  const DeviceArray<float> cell(std::vector<float>{1});
  cudaEventRecord(begin, nullptr);
  launch_fused(cell.get(), 2, nullptr);
  cudaEventRecord(end, nullptr);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
  ASSERT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
}

TEST_F(Stream, HostThreadsShareTheDevice) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([i] {
      const OwnStream stream;
      const DeviceArray<float> cell(std::vector<float>{static_cast<float>(i)});
      for (int round = 0; round < 10; ++round) {
        launch_fused(cell.get(), 1, stream);
      }
      cudaStreamSynchronize(stream);
      EXPECT_EQ(cell.read()[0], static_cast<float>(i + 10));
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
