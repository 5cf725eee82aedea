// SPDX-License-Identifier: Apache-2.0
// Capture of a stream into a graph, its replay, and what may not happen meanwhile.
#include "cuda_host/selftest/correct.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

class Graph : public StandIn {
 protected:
  // Runs the forbidden call during a capture: its error, and that the capture is lost.
  template <class Call>
  static void expect_forbidden(Call call) {
    const OwnStream stream;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    EXPECT_EQ(call(stream), cudaErrorStreamCaptureUnsupported);
    EXPECT_FALSE(last_message().empty());
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
    reset();
  }
};

TEST_F(Graph, ReplaysWhatWasCaptured) {
  for (const Streams streams : {Streams::kSync, Streams::kLazy}) {
    settings().streams = streams;
    const OwnStream stream;
    const DeviceArray<float> cell(std::vector<float>{1});
    const PinnedArray<float> back(1);
    back[0] = -1;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(launch_fused(cell.get(), 2, stream), cudaSuccess);
    ASSERT_EQ(launch_fused(cell.get(), 3, stream), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(back.get(), cell.get(), 4, cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EXPECT_EQ(cell.read()[0], 1);  // nothing ran
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    for (const float expected : {10.0F, 64.0F}) {
      ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      EXPECT_EQ(back[0], expected);
    }
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  }
}

TEST_F(Graph, OtherStreamsJoinByEvents) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    settings().seed = seed;
    const OwnStream stream;
    const OwnStream other;
    const OwnEvent fork;
    const OwnEvent join;
    const DeviceArray<float> first(std::vector<float>{1});
    const DeviceArray<float> second(std::vector<float>{1});
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    launch_fused(first.get(), 2, stream);  // 3
    cudaEventRecord(fork, stream);
    cudaStreamWaitEvent(other, fork, 0);
    cudaMemcpyAsync(second.get(), first.get(), 4, cudaMemcpyDeviceToDevice, other);
    launch_fused(second.get(), 3, other);  // 10
    cudaEventRecord(join, other);
    cudaStreamWaitEvent(stream, join, 0);
    cudaMemcpyAsync(first.get(), second.get(), 4, cudaMemcpyDeviceToDevice, stream);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(first.read()[0], 10);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
  }
}

TEST_F(Graph, AStreamThatDoesNotJoinIsAnError) {
  const OwnStream stream;
  const OwnStream other;
  const OwnEvent fork;
  const DeviceArray<float> cell(std::vector<float>{1});
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(other, fork, 0);
  launch_fused(cell.get(), 2, other);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
  EXPECT_EQ(cudaStreamIsCapturing(other, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusNone);
}

TEST_F(Graph, SynchronisationEndsACapture) {
  const OwnEvent event;
  expect_forbidden([](cudaStream_t stream) { return cudaStreamSynchronize(stream); });
  expect_forbidden([](cudaStream_t) { return cudaDeviceSynchronize(); });
  expect_forbidden([&](cudaStream_t) { return cudaEventSynchronize(event); });
  expect_forbidden([](cudaStream_t stream) { return cudaStreamQuery(stream); });
}

TEST_F(Graph, AllocationAndSynchronousCopiesEndACapture) {
  const DeviceArray<float> cell(std::vector<float>{1});
  float value = 0;
  expect_forbidden([](cudaStream_t) {
    void* memory = nullptr;
    return cudaMalloc(&memory, 4);
  });
  expect_forbidden([](cudaStream_t) {
    void* memory = nullptr;
    return cudaMallocHost(&memory, 4);
  });
  expect_forbidden([&](cudaStream_t) { return cudaFree(cell.get()); });
  expect_forbidden(
      [&](cudaStream_t) { return cudaMemcpy(&value, cell.get(), 4, cudaMemcpyDeviceToHost); });
  expect_forbidden([&](cudaStream_t stream) {  // pageable
    return cudaMemcpyAsync(&value, cell.get(), 4, cudaMemcpyDeviceToHost, stream);
  });
}

TEST_F(Graph, RelaxedCapturesAllowAllocation) {
  const OwnStream stream;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess);
  { const DeviceArray<float> cell(1); }
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphDestroy(graph);
}

TEST_F(Graph, TheDefaultStreamCannotBeCapturedNorUsedBesideABlockingCapture) {
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
            cudaErrorStreamCaptureUnsupported);
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  const DeviceArray<float> cell(std::vector<float>{1});
  ASSERT_EQ(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(launch_fused(cell.get(), 2, nullptr), cudaErrorStreamCaptureImplicit);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
  cudaStreamDestroy(blocking);
}

TEST_F(Graph, ReplayAfterMemoryWasFreedIsCaught) {
  const OwnStream stream;
  cudaGraph_t graph = nullptr;
  {
    const DeviceArray<float> cell(std::vector<float>{1});
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    launch_fused(cell.get(), 2, stream);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  }
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, stream), cudaErrorIllegalAddress);
  EXPECT_SAYS(last_message(), "when it ran, pointer argument 1 of 1");
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  reset();
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
