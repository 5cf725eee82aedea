// SPDX-License-Identifier: Apache-2.0
// Misuse of step and the step count.
#include <cmath>

#include "support/misuse.h"

namespace nibble::test {
namespace {

class Steps : public UsedOptimizer {
 protected:
  nibble_step_desc good() const {
    auto desc = api::make<nibble_step_desc>();
    desc.grads = both_, desc.n_grads = 2;
    return desc;
  }
  nibble_status step(const nibble_step_desc& desc) { return nibble_optimizer_step(opt(), &desc); }
  const void* both_[2] = {grads_.data(), grads_.data() + 64};
};

TEST_F(Steps, DescriptorsAreChecked) {
  expect_sizes_checked(good(),
                       [&](const nibble_step_desc* d) { return nibble_optimizer_step(opt(), d); });
  expect_unchanged("struct sizes");
  auto desc = good();
  refused(nibble_optimizer_step(nullptr, &desc), NIBBLE_INVALID_ARGUMENT, "opt is null");
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{1}, std::int64_t{3}, std::int64_t{-1},
                               INT64_MAX, INT64_MIN}) {
    desc = good(), desc.n_grads = n;
    refused(step(desc), NIBBLE_INVALID_ARGUMENT,
            "step: " + std::to_string(n) + " gradients for 2 parameters");
  }
  desc = good(), desc.grads = nullptr;
  refused(step(desc), NIBBLE_INVALID_ARGUMENT, "grads is null");
  for (const double bad : {double{NAN}, double{INFINITY}, -double{INFINITY}, 1e300, 1e-300}) {
    desc = good(), desc.grad_scale = bad;
    refused(step(desc), NIBBLE_INVALID_ARGUMENT, "grad_scale is ");
  }
  for (const double bad : {double{NAN}, double{INFINITY}, -1.0}) {
    desc = good(), desc.max_grad_norm = bad;
    refused(step(desc), NIBBLE_INVALID_ARGUMENT, "max_grad_norm is ");
  }
  desc = good(), both_[1] = nullptr;
  refused(step(desc), NIBBLE_INVALID_ARGUMENT, "the gradient of parameter 1 (\"second\") is null");
}

TEST_F(Steps, MissingGradientsMayBeLeftOut) {
  auto desc = good();
  both_[0] = nullptr, desc.skip_missing = 1;
  ASSERT_EQ(step(desc), NIBBLE_OK) << nibble_last_error();
  for (std::size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(weights_[i] == weights_before_[i], i < 64) << i;
  }
  EXPECT_EQ(snapshot(opt()).states[0], before_.states[0]);
  EXPECT_NE(snapshot(opt()).states.back(), before_.states.back());
  both_[1] = nullptr;
  EXPECT_EQ(step(desc), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(optimizer_.step_count(), 3);
}

TEST_F(Steps, NonFiniteGradientsAreTold) {
  std::int64_t bad = -7;
  double norm = -7;
  auto desc = good();
  desc.out_nonfinite = &bad, desc.out_grad_norm = &norm;
  grads_[3] = NAN, grads_[100] = INFINITY;
  refused(step(desc), NIBBLE_NON_FINITE, "2 gradients are not finite: the step was not taken");
  EXPECT_EQ(bad, 2);
  EXPECT_TRUE(std::isinf(norm));
  grads_[3] = grads_[100] = 0;
  const float zero = 0, one = 1, nan = NAN;
  for (const float* found : {&one, &nan}) {
    desc.found_inf = found;
    refused(step(desc), NIBBLE_NON_FINITE, "found_inf is set: the step was not taken");
    EXPECT_EQ(bad, 0);
  }
  desc.found_inf = &zero;
  EXPECT_EQ(step(desc), NIBBLE_OK);
}

TEST(StepOrder, NothingBeforeParametersAndWeights) {
  api::Optimizer opt(adamw_desc("int8"));
  float weights[64] = {};
  const float grad[64] = {};
  const void* grads[] = {grad, grad};
  auto desc = api::make<nibble_step_desc>();
  desc.grads = grads;
  expect_failure(nibble_optimizer_step(opt.get(), &desc), NIBBLE_WRONG_ORDER, "no parameters");
  opt.add("first", {64}, weights);
  auto param = api::make<nibble_param_desc>();
  const std::int64_t shape[] = {64};
  param.name = "unbound", param.n_dims = 1, param.shape = shape;
  opt.add_param(param);
  desc.n_grads = 2;
  expect_failure(nibble_optimizer_step(opt.get(), &desc), NIBBLE_WRONG_ORDER,
                 "parameter 1 (\"unbound\") has no weights; bind first");
  EXPECT_EQ(opt.step_count(), 0);
  expect_failure(nibble_optimizer_bind(opt.get(), 1, nullptr), NIBBLE_INVALID_ARGUMENT, "null");
  expect_failure(nibble_optimizer_step(opt.get(), &desc), NIBBLE_WRONG_ORDER, "bind first");
  opt.bind(1, weights);
  EXPECT_EQ(nibble_optimizer_step(opt.get(), &desc), NIBBLE_OK);
}

TEST_F(Steps, Counts) {
  std::int64_t count = -7;
  refused(nibble_optimizer_step_count(nullptr, &count), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_step_count(opt(), nullptr), NIBBLE_INVALID_ARGUMENT, "out is null");
  EXPECT_EQ(count, -7);
  refused(nibble_optimizer_set_step_count(nullptr, 1), NIBBLE_INVALID_ARGUMENT, "opt is null");
  for (const std::int64_t bad : {std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    refused(nibble_optimizer_set_step_count(opt(), bad), NIBBLE_INVALID_ARGUMENT,
            "step count is " + std::to_string(bad));
  }
  constexpr std::int64_t kLimit = INT64_C(1) << 53;
  ASSERT_EQ(nibble_optimizer_set_step_count(opt(), kLimit - 1), NIBBLE_OK);
  EXPECT_EQ(step(good()), NIBBLE_OK);
  for (const float w : weights_) {
    EXPECT_TRUE(std::isfinite(w));
  }
  const std::vector<float> after = weights_;
  expect_failure(step(good()), NIBBLE_WRONG_ORDER, "9007199254740992 steps were taken");
  EXPECT_EQ(weights_, after);
  EXPECT_EQ(optimizer_.step_count(), kLimit);
}

}  // namespace
}  // namespace nibble::test
