// SPDX-License-Identifier: Apache-2.0
// The device gives the bits of the host, for any order in which its threads run.
#include <limits>

#include "conformance/device_run.h"

namespace nibble::test {
namespace {

struct Schedule {
  cuda_host::Order order;
  std::uint64_t seed;
};
constexpr Schedule kSchedules[] = {{cuda_host::Order::kInOrder, 0},
                                   {cuda_host::Order::kRandom, 1},
                                   {cuda_host::Order::kReverse, 0},
                                   {cuda_host::Order::kRandom, 2},
                                   {cuda_host::Order::kRandom, 3}};

// Two of them always, all with NIBBLE_ALL_SCHEDULES; on a GPU there is one.
std::vector<Schedule> schedules() {
  const std::size_t count = !cuda_host::is_stand_in()                        ? 1
                            : std::getenv("NIBBLE_ALL_SCHEDULES") != nullptr ? std::size(kSchedules)
                                                                             : 2;
  return {kSchedules, kSchedules + count};
}

std::vector<std::vector<std::uint8_t>> device_bytes_after(const TensorCase& setup,
                                                          const std::string& input, std::size_t n,
                                                          int steps) {
  DeviceRun run(setup, make_input("normal", n, 50));
  for (int t = 0; t < steps; ++t) {
    run.step(make_input(input, n, static_cast<std::uint64_t>(t + 1)));
  }
  return run.bytes();
}

void expect_same(const TensorCase& setup, const std::string& input, std::size_t n, int steps) {
  const auto host = bytes_after(setup, input, n, steps);
  for (const Schedule& schedule : schedules()) {
    cuda_host::settings().order = schedule.order;
    cuda_host::settings().seed = schedule.seed;
    const auto device = device_bytes_after(setup, input, n, steps);
    ASSERT_EQ(host.size(), device.size());
    for (std::size_t i = 0; i < host.size(); ++i) {
      ASSERT_TRUE(host[i] == device[i]) << setup.name() << " " << input << " " << n << ": array "
                                        << i << " of " << host.size() << "\n"
                                        << cuda_host::last_message() << "\n"
                                        << cuda_host::replay_line();
    }
  }
}

class Conformance : public DeviceTest {};

TEST_F(Conformance, EveryRuleFormatAndWeightChoice) {
  for (const TensorCase& setup : all_cases(13)) {
    for (const char* input : {"normal", "outlier"}) {
      expect_same(setup, input, 13 * 41, 3);
    }
  }
  for (const TensorCase& setup : all_cases(64)) {
    expect_same(setup, "normal", 64 * 129, 2);  // 8256: chunks, blocks and a tail
  }
}

// Every allocation ends where a page without access begins: what is read or written past an end
// stops the test.
TEST_F(Conformance, NothingBeyondAnEnd) {
  if (!cuda_host::is_stand_in()) {
    GTEST_SKIP() << "on a GPU compute-sanitizer looks (tests/gpu.sh)";
  }
  api::check(nibble_device_set_memory_limit("cuda", 0));  // what is cached has no such end
  cuda_host::settings().guard = true;
  for (const TensorCase& setup : all_cases(13)) {
    expect_same(setup, "normal", 13 * 41, 2);
  }
  api::check(nibble_device_set_memory_limit("cuda", 0));
}

}  // namespace
}  // namespace nibble::test
