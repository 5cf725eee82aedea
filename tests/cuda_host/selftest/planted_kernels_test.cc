// SPDX-License-Identifier: Apache-2.0
// Each planted mistake in a kernel is caught, and this says by what. What only a sanitizer sees is
// tested in the build that has it; other builds skip it and say so.
#include <cmath>
#include <cstdlib>
#include <ostream>
#include <string>

#include "cuda_host/selftest/planted.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

class PlantedKernel : public StandIn {};
class PlantedKernelDeathTest : public StandIn {};

// What a run shows: the first message, else "NaN", else the outputs' difference between schedules.
std::string symptom(Planted which) {
  std::vector<float> first;
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    reset();
    const DeviceArray<float> in(ramp(256));
    const DeviceArray<float> out(std::vector<float>(256, 0.0F));
    launch_planted(which, out.get(), in.get(), nullptr);
    if (cudaDeviceSynchronize() != cudaSuccess) {
      const std::string message = last_message();
      reset();
      return message;
    }
    const std::vector<float> values = out.read();
    for (const float value : values) {
      if (std::isnan(value)) {
        return "NaN";
      }
    }
    if (!first.empty() && values != first) {
      return "differs";
    }
    first = values;
  }
  return "nothing";
}

TEST_F(PlantedKernel, DivergentBarrier) {
  const std::string message = symptom(Planted::kDivergentBarrier);
  EXPECT_SAYS(message, "planted");  // the kernel's name at the launch
  EXPECT_SAYS(message, "block (0,0,0): divergent barrier: thread 0 (0,0,0) waits in __syncthreads");
  EXPECT_SAYS(message, "planted.cu:");
  EXPECT_SAYS(message, "thread 255 (255,0,0) has exited");
}

TEST_F(PlantedKernel, BarriersAtTwoPlaces) {
  const std::string message = symptom(Planted::kTwoBarriers);
  EXPECT_SAYS(message, "barriers at different places: thread 0 (0,0,0) waits in __syncthreads at ");
  EXPECT_SAYS(message, "but thread 1 (1,0,0) waits in __syncthreads at ");
}

TEST_F(PlantedKernel, ShuffleFromInactiveLane) {
  const std::string message = symptom(Planted::kShuffleFromInactive);
  EXPECT_SAYS(message, "__shfl_down_sync at ");
  EXPECT_SAYS(message, "lane 8 reads lane 16, which takes no part (mask 0000ffff");
}

TEST_F(PlantedKernel, ShuffleAgainstBarrierHangs) {
  const std::string message = symptom(Planted::kShuffleAgainstBarrier);
  EXPECT_SAYS(message, "deadlock: thread 0 (0,0,0) waits in __shfl_xor_sync at ");
  EXPECT_SAYS(message, "with mask ffffffff for lanes ffff0000");
  EXPECT_SAYS(message, "thread 16 (16,0,0) waits in __syncthreads at ");
}

TEST_F(PlantedKernel, ShuffleMasksDiffer) {
  const std::string message = symptom(Planted::kShuffleMasksDiffer);
  EXPECT_SAYS(message, "deadlock: thread 0 (0,0,0) waits in __shfl_sync at ");
  EXPECT_SAYS(message, "with mask ffffffff for lanes ffff0000");
  EXPECT_SAYS(message, "with mask ffff0001 for lanes 00000001");
}

TEST_F(PlantedKernel, ShuffleOutsideOwnMask) {
  EXPECT_SAYS(symptom(Planted::kShuffleOutsideOwnMask), "lane 16 is not in its own mask 0000ffff");
}

TEST_F(PlantedKernel, ShufflesAtTwoPlaces) {
  EXPECT_SAYS(symptom(Planted::kTwoShuffles), "__shfl_xor_sync meets lanes");
}

TEST_F(PlantedKernel, ActiveMask) { EXPECT_SAYS(symptom(Planted::kActiveMask), "__activemask()"); }

TEST_F(PlantedKernel, UnwrittenSharedMemory) {
  EXPECT_EQ(symptom(Planted::kUnwrittenShared), "NaN");
}

TEST_F(PlantedKernel, NoAsyncWait) { EXPECT_EQ(symptom(Planted::kNoAsyncWait), "NaN"); }

TEST_F(PlantedKernel, StaticAndDynamicSharedMemoryTogetherOverTheLimit) {
  EXPECT_SAYS(symptom(Planted::kTooMuchShared), "bytes of shared memory, over the limit");
}

TEST_F(PlantedKernel, TooManyThreads) {
  const DeviceArray<float> in(ramp(256));
  const DeviceArray<float> out(256);
  EXPECT_EQ(launch_copy(out.get(), in.get(), 1024, nullptr), cudaSuccess);
  EXPECT_EQ(launch_copy(out.get(), in.get(), 1025, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_SAYS(last_message(), "block (1025,1,1) is empty or has more than 1024 threads");
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // a launch that never was leaves nothing behind
}

TEST_F(PlantedKernel, HostPointer) {
  const DeviceArray<float> out(256);
  const std::vector<float> in = ramp(256);
  EXPECT_EQ(launch_copy(out.get(), in.data(), 256, nullptr), cudaErrorIllegalAddress);
  EXPECT_SAYS(last_message(), "pointer argument 2 of 2 is neither device nor pinned memory");
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);  // sticky
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  reset();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

// --- Races: wrong results, or ThreadSanitizer's report.

struct Race {
  const char* name;
  Planted which;
  const char* symptom;  // in a build without ThreadSanitizer
};
void PrintTo(const Race& race, std::ostream* out) { *out << race.name; }

class PlantedRace : public StandIn, public testing::WithParamInterface<Race> {};

TEST_P(PlantedRace, ShowsInTheResults) {
  if (kThreadSanitizer) {
    GTEST_SKIP() << "ThreadSanitizer would end the test: see ThreadSanitizerNamesTheKernel";
  }
  EXPECT_EQ(symptom(GetParam().which), GetParam().symptom);
}

TEST_P(PlantedRace, ThreadSanitizerNamesTheKernel) {
  if (!kThreadSanitizer) {
    GTEST_SKIP() << "needs -fsanitize=thread";
  }
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto run = [] {
    symptom(GetParam().which);
    std::exit(0);  // ThreadSanitizer makes that 66
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(66), "data race.*(\n.*)*planted.cu");
}

INSTANTIATE_TEST_SUITE_P(
    All, PlantedRace,
    testing::Values(Race{"MissingBarrier", Planted::kMissingBarrier, "NaN"},
                    Race{"SharedReused", Planted::kSharedReused, "differs"},
                    Race{"LostUpdate", Planted::kLostUpdate, "differs"},
                    Race{"LostUpdateAcrossBlocks", Planted::kLostUpdateAcrossBlocks, "differs"},
                    Race{"ReadsOtherBlock", Planted::kReadsOtherBlock, "differs"},
                    Race{"NoBarrierAfterAsyncWait", Planted::kNoBarrierAfterAsyncWait, "NaN"}),
    [](const auto& info) { return std::string(info.param.name); });

// --- Overruns: red zones in a plain build, the end of the process where a sanitizer watches.

TEST_F(PlantedKernelDeathTest, SharedOverrun) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(symptom(Planted::kSharedOverrun), "out of bounds|use-after-poison");
  } else if (kThreadSanitizer) {
    GTEST_SKIP() << "needs a build without -fsanitize=thread";
  } else {
    EXPECT_SAYS(symptom(Planted::kSharedOverrun), "shared array 'tile' (");
  }
}

TEST_F(PlantedKernelDeathTest, GlobalOverwrite) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(symptom(Planted::kGlobalOverwrite), "heap-buffer-overflow.*(\n.*)*planted.cu");
  } else {
    EXPECT_SAYS(symptom(Planted::kGlobalOverwrite),
                "it wrote past the end of a device or pinned allocation of 1024 bytes");
  }
}

TEST_F(PlantedKernelDeathTest, GlobalOverread) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(symptom(Planted::kGlobalOverread), "heap-buffer-overflow.*(\n.*)*planted.cu");
  } else if (kThreadSanitizer) {
    GTEST_SKIP() << "needs a build without -fsanitize=thread, or with -fsanitize=address";
  } else {
    settings().guard = true;
    EXPECT_DEATH(symptom(Planted::kGlobalOverread),
                 "planted, block .0,0,0., thread 255 .* touched 0 bytes past the end of a device "
                 "allocation of 1024 bytes");
  }
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
