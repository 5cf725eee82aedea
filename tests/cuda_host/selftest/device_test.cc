// SPDX-License-Identifier: Apache-2.0
// Correct kernels give what a plain loop gives, under every schedule.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda_host/selftest/correct.h"
#include "cuda_host/selftest/support.h"

namespace nibble::cuda_host::selftest {
namespace {

class Device : public StandIn {};

// The lane from which CUDA's definition lets `lane` read; its own if the section ends before.
unsigned source_lane(Shuffle kind, unsigned lane, unsigned amount, unsigned width) {
  const unsigned section = lane / width * width;
  switch (kind) {
    case Shuffle::kIndex:
      return section + amount % width;
    case Shuffle::kUp:
      return lane >= section + amount ? lane - amount : lane;
    case Shuffle::kDown:
      return lane + amount < section + width ? lane + amount : lane;
    default:
      return (lane ^ amount) < section + width ? lane ^ amount : lane;
  }
}

template <class T>
void check_shuffles(unsigned threads) {
  std::vector<T> in(threads);
  for (unsigned i = 0; i < threads; ++i) {
    in[i] = static_cast<T>(i * 1000003.0 + 0.25);
  }
  const DeviceArray<T> device_in(in);
  const DeviceArray<T> device_out(threads);
  for (const Shuffle kind : {Shuffle::kIndex, Shuffle::kUp, Shuffle::kDown, Shuffle::kXor}) {
    for (const unsigned width : {1U, 2U, 8U, 16U, 32U}) {
      for (const unsigned amount : {0U, 1U, 3U, 5U, 16U, 31U}) {
        ASSERT_EQ(launch_shuffle<T>(kind, device_out.get(), device_in.get(), amount,
                                    static_cast<int>(width), threads, nullptr),
                  cudaSuccess)
            << last_message();
        const std::vector<T> out = device_out.read();
        for (unsigned i = 0; i < threads; ++i) {
          ASSERT_EQ(out[i], in[i / 32 * 32 + source_lane(kind, i % 32, amount, width)])
              << "kind " << static_cast<int>(kind) << " width " << width << " amount " << amount
              << " thread " << i << " " << replay_line();
        }
      }
    }
  }
}

TEST_F(Device, ShufflesOfEveryTypeAreThoseOfAPlainLoop) {
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    check_shuffles<int>(64);
    check_shuffles<unsigned>(32);
    check_shuffles<float>(96);
    check_shuffles<double>(64);
    check_shuffles<unsigned long long>(64);
  }
}

TEST_F(Device, VotesAndReductionsAreThoseOfAPlainLoop) {
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    for (const unsigned pattern : {0U, 1U, 2U}) {  // mixed, all odd, all even
      std::vector<unsigned> in(96);
      for (unsigned i = 0; i < in.size(); ++i) {
        in[i] = pattern == 0 ? i * i * 7 % 31 : 2 * i + pattern % 2;
      }
      const DeviceArray<unsigned> device_in(in);
      const DeviceArray<Votes> device_out(in.size());
      ASSERT_EQ(launch_votes(device_out.get(), device_in.get(), 96, nullptr), cudaSuccess);
      const std::vector<Votes> out = device_out.read();
      const auto odd = [](unsigned value) { return value % 2 != 0; };
      const auto odds = static_cast<int>(std::count_if(in.begin(), in.end(), odd));
      for (std::size_t i = 0; i < in.size(); ++i) {
        const auto first = in.begin() + static_cast<std::ptrdiff_t>(i / 32 * 32);
        unsigned ballot = 0;
        unsigned sum = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
          ballot |= (odd(first[lane]) ? 1U : 0U) << lane;
          sum += first[lane];
        }
        EXPECT_EQ(out[i].ballot, ballot);
        EXPECT_EQ(out[i].any, ballot != 0 ? 1U : 0U);
        EXPECT_EQ(out[i].all, ballot == 0xFFFFFFFFU ? 1U : 0U);
        EXPECT_EQ(out[i].sum, sum);
        EXPECT_EQ(out[i].least, *std::min_element(first, first + 32));
        EXPECT_EQ(out[i].greatest, *std::max_element(first, first + 32));
        EXPECT_EQ(out[i].block_count, odds);
        EXPECT_EQ(out[i].block_and, odds == 96 ? 1 : 0);
        EXPECT_EQ(out[i].block_or, odds != 0 ? 1 : 0);
      }
    }
  }
}

TEST_F(Device, IndicesHaveThreeDimensions) {
  const dim3 grid(3, 2, 4);
  const dim3 block(5, 3, 2);
  constexpr unsigned kThreads = 30;
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    const DeviceArray<std::uint64_t> out(24 * kThreads);
    ASSERT_EQ(launch_indices(out.get(), grid, block, nullptr), cudaSuccess);
    const std::vector<std::uint64_t> values = out.read();
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], i / kThreads * 1000000 + i % kThreads);
    }
  }
}

TEST_F(Device, AtomicsLoseNothing) {
  constexpr unsigned kThreads = 512;
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    const DeviceArray<Atomics> cells(std::vector<Atomics>(1));
    ASSERT_EQ(launch_atomics(cells.get(), nullptr), cudaSuccess);
    const Atomics result = cells.read()[0];
    constexpr unsigned kSum = kThreads * (kThreads - 1) / 2;
    EXPECT_EQ(result.sum_int, static_cast<int>(kSum) - 100 * static_cast<int>(kThreads));
    EXPECT_EQ(result.max_int, 411);
    EXPECT_EQ(result.min_int, -100);
    EXPECT_EQ(result.sum_unsigned, kSum);
    EXPECT_EQ(result.max_unsigned, 511U);
    EXPECT_EQ(result.min_unsigned, 0U);
    EXPECT_EQ(result.bits, 0xFFFFFFFFU);
    EXPECT_EQ(result.exchanged, 7U);
    EXPECT_EQ(result.ticket, 2 * kThreads);
    EXPECT_EQ(result.sum_long, (1ULL << 40) * kThreads + kSum);
    EXPECT_EQ(result.max_long, (1ULL << 40) + 511);
    EXPECT_EQ(result.min_long, 0U);
    EXPECT_EQ(result.sum_float, 512.0F);
    EXPECT_EQ(result.sum_double, 256.0);
  }
}

TEST_F(Device, QuantiseIsThatOfAPlainLoop) {
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    for (const std::size_t count : {1U, 31U, 256U, 257U, 3000U}) {
      std::vector<float> in(count);
      for (std::size_t i = 0; i < count; ++i) {
        in[i] = std::sin(static_cast<float>(i * i)) * static_cast<float>(i % 13);
      }
      const DeviceArray<float> device_in(in);
      for (const int per_thread : {1, 8}) {
        const DeviceArray<std::int8_t> codes(count);
        const DeviceArray<float> scales((count + 255) / 256);
        ASSERT_EQ(launch_quantize(device_in.get(), codes.get(), scales.get(),
                                  static_cast<std::int64_t>(count), per_thread, nullptr),
                  cudaSuccess)
            << last_message();
        const std::vector<std::int8_t> got = codes.read();
        const std::vector<float> got_scales = scales.read();
        for (std::size_t i = 0; i < count; ++i) {
          float scale = 0;
          for (std::size_t k = i / 256 * 256; k < std::min(count, i / 256 * 256 + 256); ++k) {
            scale = std::max(scale, std::fabs(in[k]));
          }
          ASSERT_EQ(got_scales[i / 256], scale);
          ASSERT_EQ(got[i],
                    static_cast<int>(std::nearbyint(in[i] * (scale > 0 ? 127.0F / scale : 0.0F))));
        }
      }
    }
  }
}

TEST_F(Device, AsyncCopiesArriveAtTheirWait) {
  const std::vector<float> in = ramp(1024);
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    const DeviceArray<float> device_in(in);
    const DeviceArray<float> out(in.size());
    ASSERT_EQ(launch_reverse_tiles(device_in.get(), out.get(), 1024, nullptr), cudaSuccess);
    const std::vector<float> got = out.read();
    for (std::size_t i = 0; i < in.size(); ++i) {
      ASSERT_EQ(got[i], 2 * in[i / 256 * 256 + 255 - i % 256]);
    }
  }
}

TEST_F(Device, LastBlockAddsUpWhatTheOthersLeft) {
  std::vector<float> in(5000);
  for (std::size_t i = 0; i < in.size(); ++i) {
    in[i] = static_cast<float>(i % 17);
  }
  const float sum = [&] {
    float total = 0;  // integers: exact in any order
    for (const float value : in) {
      total += value;
    }
    return total;
  }();
  for (const Schedule& schedule : schedules()) {
    use(schedule);
    const DeviceArray<float> device_in(in);
    const DeviceArray<float> partial(7);
    const DeviceArray<float> result(1);
    const DeviceArray<unsigned> ticket(std::vector<unsigned>{0});
    for (int round = 0; round < 2; ++round) {
      ASSERT_EQ(
          launch_sum(device_in.get(), 5000, partial.get(), 7, ticket.get(), result.get(), nullptr),
          cudaSuccess);
      EXPECT_EQ(result.read()[0], sum) << schedule.name;
    }
  }
}

TEST_F(Device, ScalarFunctions) {
  const float a = 1.1F;
  const float b = 0.3F;
  const DeviceArray<float> in(std::vector<float>{a, b});
  const DeviceArray<std::uint32_t> out(12);
  ASSERT_EQ(launch_scalar(out.get(), in.get(), nullptr), cudaSuccess);
  const std::vector<std::uint32_t> got = out.read();
  const auto as_float = [&](std::size_t i) {
    float value = 0;
    std::memcpy(&value, &got[i], sizeof value);
    return value;
  };
  EXPECT_EQ(as_float(0), static_cast<float>(double{a} * double{b} + 1.0));  // one rounding: fused
  EXPECT_EQ(as_float(1), a / b);
  EXPECT_EQ(as_float(2), std::sqrt(a));
  EXPECT_EQ(as_float(3), a * b);
  EXPECT_EQ(as_float(4), a + b);
  EXPECT_EQ(got[5], 8U);
  EXPECT_EQ(got[6], 15U);
  EXPECT_EQ(got[7], 17U);
  EXPECT_EQ(got[8], 3U);
  EXPECT_EQ(got[9], 0x40490FDBU);
  EXPECT_EQ(got[10], 32U);
  EXPECT_EQ(got[11], 10U);  // 2.5 goes to the even 2
}

TEST_F(Device, RandomOrdersFollowTheSeed) {
  // The last writer of a cell that all threads write differs between seeds, and not between runs.
  settings().order = Order::kRandom;
  std::vector<float> seen;
  for (const std::uint64_t seed : {1U, 1U, 2U, 3U, 4U, 5U}) {
    settings().seed = seed;
    const DeviceArray<float> in(ramp(64));
    const DeviceArray<float> last(1);
    ASSERT_EQ(launch_last_writer(last.get(), in.get(), nullptr), cudaSuccess);
    seen.push_back(last.read()[0]);
  }
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_NE(std::count(seen.begin(), seen.end(), seen[0]), 6);
}

}  // namespace
}  // namespace nibble::cuda_host::selftest
