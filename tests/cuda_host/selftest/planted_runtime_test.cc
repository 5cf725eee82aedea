// SPDX-License-Identifier: Apache-2.0
// Mistakes in host code that a GPU shows only sometimes: lazy streams show them.
#include "cuda_host/selftest/correct.h"
#include "cuda_host/selftest/planted.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

class PlantedHostCode : public StandIn {
 protected:
  static void be_lazy(std::uint64_t seed) {
    settings().streams = Streams::kLazy;
    settings().seed = seed;
    reset();
  }
};

float first_value(const DeviceArray<float>& cell) { return cell.read()[0]; }

TEST_F(PlantedHostCode, PinnedBufferRewrittenBeforeTheStreamRan) {
  for (const bool lazy : {false, true}) {
    settings().streams = lazy ? Streams::kLazy : Streams::kSync;
    const OwnStream stream;
    const PinnedArray<float> buffer(1);
    const DeviceArray<float> cell(1);
    buffer[0] = 1;
    cudaMemcpyAsync(cell.get(), buffer.get(), 4, cudaMemcpyHostToDevice, stream);
    buffer[0] = 2;
    cudaStreamSynchronize(stream);
    EXPECT_EQ(first_value(cell), lazy ? 2 : 1);  // in lazy mode the mistake shows
  }
}

TEST_F(PlantedHostCode, ResultReadBeforeTheStreamRan) {
  be_lazy(1);
  const OwnStream stream;
  const PinnedArray<float> back(1);
  const DeviceArray<float> cell(std::vector<float>{5});
  back[0] = -1;
  cudaMemcpyAsync(back.get(), cell.get(), 4, cudaMemcpyDeviceToHost, stream);
  EXPECT_EQ(back[0], -1);
  cudaStreamSynchronize(stream);
}

TEST_F(PlantedHostCode, MissingStreamWaitEvent) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    be_lazy(seed);
    const OwnStream producer;
    const OwnStream consumer;
    const PinnedArray<float> back(1);
    const DeviceArray<float> cell(std::vector<float>{1});
    launch_fused(cell.get(), 2, producer);
    cudaMemcpyAsync(back.get(), cell.get(), 4, cudaMemcpyDeviceToHost, consumer);
    cudaDeviceSynchronize();
    wrong += back[0] != 3 ? 1 : 0;
  }
  EXPECT_GT(wrong, 3);
  EXPECT_LT(wrong, 17);
}

TEST_F(PlantedHostCode, FreedWhileAnotherStreamUsesIt) {
  be_lazy(1);
  const OwnStream stream;
  const DeviceArray<float> out(256);
  void* in = nullptr;
  ASSERT_EQ(cudaMalloc(&in, 1024), cudaSuccess);
  ASSERT_EQ(launch_copy(out.get(), static_cast<const float*>(in), 256, stream), cudaSuccess);
  EXPECT_EQ(cudaFree(in), cudaErrorIllegalAddress);
  EXPECT_SAYS(last_message(), "cudaFree of byte 0 of a device allocation of 1024 bytes");
  EXPECT_SAYS(last_message(), "still to be used by copy (launched at ");
  reset();
}

TEST_F(PlantedHostCode, UsedOnAnotherStreamAfterFree) {
  be_lazy(1);
  const OwnStream stream;
  const DeviceArray<float> out(256);
  void* in = nullptr;
  ASSERT_EQ(cudaMalloc(&in, 1024), cudaSuccess);
  ASSERT_EQ(cudaFree(in), cudaSuccess);
  EXPECT_EQ(launch_copy(out.get(), static_cast<const float*>(in), 256, stream),
            cudaErrorIllegalAddress);
  EXPECT_SAYS(last_message(), "(a host pointer, or freed)");
  reset();
  EXPECT_EQ(cudaMemcpyAsync(out.get(), in, 4, cudaMemcpyDeviceToDevice, stream),
            cudaErrorInvalidValue);
}

TEST_F(PlantedHostCode, NothingWorksAfterAFault) {
  const DeviceArray<float> in(ramp(256));
  const DeviceArray<float> out(256);
  EXPECT_EQ(launch_planted(Planted::kDivergentBarrier, out.get(), in.get(), nullptr),
            cudaErrorLaunchFailure);
  const std::string message = last_message();
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorLaunchFailure);
  EXPECT_EQ(launch_copy(out.get(), in.get(), 256, nullptr), cudaErrorLaunchFailure);
  EXPECT_EQ(last_message(), message);  // the first one stays
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  reset();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(launch_copy(out.get(), in.get(), 256, nullptr), cudaSuccess);
  EXPECT_EQ(out.read(), ramp(256));
}

TEST_F(PlantedHostCode, AFaultOfQueuedWorkShowsAtTheSynchronisation) {
  be_lazy(1);
  const OwnStream stream;
  const DeviceArray<float> in(ramp(256));
  const DeviceArray<float> out(256);
  EXPECT_EQ(launch_planted(Planted::kDivergentBarrier, out.get(), in.get(), stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  reset();
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
