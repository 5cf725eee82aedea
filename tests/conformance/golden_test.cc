// SPDX-License-Identifier: Apache-2.0
// The golden trajectories on the device: bit by bit those of the host, which tests/optim holds to
// the golden data's tolerances.
#include "conformance/device_run.h"
#include "support/golden_recipe.h"

namespace nibble::test {
namespace {

class DeviceGolden : public DeviceTest {};

TEST_F(DeviceGolden, TrajectoriesAreTheHosts) {
  int covered = 0;
  for (const GoldenFile& file : golden_files("optimizer_trajectory")) {
    std::string why;
    const auto recipe = read_recipe(file, why);
    if (!recipe) {
      continue;  // tests/optim says which
    }
    const TensorCase setup = case_of(*recipe, recipe->setup.mode);
    CaseRun host(setup, recipe->w0);
    DeviceRun device(setup, recipe->w0);
    for (int t = 1; t <= recipe->steps; ++t) {
      host.step(grad_at(*recipe, t), 1.0);
      device.step(grad_at(*recipe, t), 1.0);
    }
    EXPECT_TRUE(host.bytes() == device.bytes()) << file.name;
    ++covered;
  }
  if (covered == 0) {
    GTEST_SKIP() << "no golden trajectories in " << golden_dir();
  }
  std::cout << covered << " trajectories\n";
}

}  // namespace
}  // namespace nibble::test
