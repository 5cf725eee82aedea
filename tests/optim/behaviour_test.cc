// SPDX-License-Identifier: Apache-2.0
// What an optimizer promises around the step.
#include <gtest/gtest.h>

#include <cmath>

#include "support/capi.h"
#include "support/hyper_cases.h"
#include "support/inputs.h"

namespace nibble::test {
namespace {

TEST(NonFinite, SkippedStepChangesNothingAndTellsTheCount) {
  for (const char* format : {"fp32", "int8"}) {
    OneTensor run(adamw_desc(format), make_input("normal", 5000, 50));
    auto grad = make_input("normal", 5000);
    ASSERT_TRUE(run.step(grad.data()));
    const auto weights = run.weights;
    const auto states = run.states();
    grad[0] = std::nanf(""), grad[4999] = std::numeric_limits<float>::infinity();
    grad[77] = 3e38F;  // finite, but not after scaling
    const void* grads[] = {grad.data()};
    std::int64_t bad = -1;
    auto desc = api::make<nibble_step_desc>();
    desc.grads = grads, desc.n_grads = 1, desc.grad_scale = 4.0, desc.out_nonfinite = &bad;
    EXPECT_EQ(nibble_optimizer_step(run.optimizer.get(), &desc), NIBBLE_NON_FINITE);
    EXPECT_EQ(bad, 3);
    EXPECT_NE(std::string(nibble_last_error()).find("3 gradients"), std::string::npos);
    EXPECT_EQ(run.weights, weights);
    EXPECT_EQ(run.states(), states);
    EXPECT_EQ(run.optimizer.step_count(), 1);
  }
}

TEST(NonFinite, SkippedElementLeavesTheOthersAsWithoutIt) {
  nibble_optimizer_desc desc = adamw_desc("fp32");
  desc.nonfinite = NIBBLE_NONFINITE_SKIP_ELEMENT;
  OneTensor run(desc, make_input("normal", 5000, 50));
  OneTensor clean(desc, run.weights);
  auto grad = make_input("normal", 5000);
  clean.step(grad.data());
  const float before = run.weights[42];
  grad[42] = std::nanf("");
  EXPECT_TRUE(run.step(grad.data()));
  EXPECT_EQ(run.weights[42], before);
  run.weights[42] = clean.weights[42];
  EXPECT_EQ(run.weights, clean.weights);
}

TEST(HyperParameters, EachChangesTheStep) {
  const std::size_t n = std::size_t{12} * 20;
  for (const HyperCase& entry : hyper_cases(12)) {
    EXPECT_FALSE(bytes_after(entry.base, "normal", n, 3) ==
                 bytes_after(entry.changed, "normal", n, 3))
        << entry.name;
  }
}

TEST(GlobalNorm, IsTheNormInDouble) {
  const auto x = make_input("logscale", 100003);
  const void* tensors[] = {x.data()};
  const std::int64_t count = 100003;
  double sum = 0, norm = 0;
  for (const float v : x) {
    sum += double{v} * v;
  }
  std::int64_t bad = -1;
  ASSERT_EQ(nibble_global_norm(tensors, &count, nullptr, 1, &norm, &bad), NIBBLE_OK);
  EXPECT_NEAR(norm / std::sqrt(sum), 1.0, 1e-12);
  EXPECT_EQ(bad, 0);
  auto y = x;
  y[99999] = std::nanf(""), y[0] = -std::numeric_limits<float>::infinity();
  tensors[0] = y.data();
  ASSERT_EQ(nibble_global_norm(tensors, &count, nullptr, 1, &norm, &bad), NIBBLE_OK);
  EXPECT_EQ(bad, 2);
  EXPECT_TRUE(std::isinf(norm));
}

}  // namespace
}  // namespace nibble::test
