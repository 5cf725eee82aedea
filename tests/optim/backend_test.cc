// SPDX-License-Identifier: Apache-2.0
// What a step's result seldom shows: backends side by side.
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "support/inputs.h"

namespace nibble::test {
namespace {

// Rounded to a float, a ratio of norms seldom shows their last bits: they are compared themselves.
TEST(Backends, NormsOfTrustRatios) {
  const std::int64_t n = 9000;
  const auto count = static_cast<std::size_t>(n);
  auto weights = make_input("normal", count);
  const auto grads = make_input("logscale", count, 1);
  std::vector<std::uint8_t> first(count, 130), second(count, 9);
  std::vector<float> scale(count / 32 + 1, 0.01F);
  const double hyper[math::kMaxHypers] = {1e-2, 0.1, 0.9, 0.999, 1e-6};
  float terms[math::kMaxTerms];
  math::Lamb::prepare(hyper, 1, terms);
  for (const std::int64_t block : {32, 64, 256, 1024, 4096}) {
    backend::StepTask task;
    task.rule = math::find_rule("lamb");
    task.weights.format = math::find_weights("fp32");
    task.weights.data = reinterpret_cast<std::uint8_t*>(weights.data());
    task.grads = {grads.data(), false};
    const int int8 = math::find_format("int8");
    task.state[0] = {int8, first.data(), scale.data(), {}};
    task.state[1] = {int8, second.data(), scale.data(), {}};
    task.block = block, task.terms = terms, task.decay = 0.1F;
    backend::Measures expected;
    backend::reference_backend().measure(task, 0, n, &expected);
    EXPECT_GT(expected.update_squares, 0.0);
    for (const backend::Backend* backend : backend::available_backends()) {
      backend::Measures got;
      backend->measure(task, 0, n, &got);
      EXPECT_EQ(got.weight_squares, expected.weight_squares) << backend->name << " " << block;
      EXPECT_EQ(got.update_squares, expected.update_squares) << backend->name << " " << block;
    }
  }
}

}  // namespace
}  // namespace nibble::test
