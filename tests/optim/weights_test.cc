// SPDX-License-Identifier: Apache-2.0
// Weight formats: what beside bf16 weights keeps a run exact, unbiased, or neither (the control).
#include <gtest/gtest.h>

#include <cmath>

#include "support/tensor_case.h"

namespace nibble::test {
namespace {

CaseRun run_steps(const std::string& weights, std::size_t n, int steps, double lr) {
  TensorCase setup;
  setup.weights = weights, setup.format = "fp32", setup.bf16_grads = true;
  setup.hypers = {{"learning_rate", lr}, {"weight_decay", 0.01}};
  auto start = make_input("normal", n, 50);
  for (float& w : start) {
    w = math::bf16_to_float(math::float_to_bf16(w));
  }
  CaseRun run(setup, start);
  for (int t = 1; t <= steps; ++t) {
    run.step(make_input("normal", n, static_cast<std::uint64_t>(t)), 1.0);
  }
  return run;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    out = std::max(out, std::abs(double{a[i]} - b[i]));
  }
  return out;
}

TEST(Weights, SixteenCorrectionBitsAndAMasterAreExact) {
  const auto exact = run_steps("fp32", 1003, 100, 1e-4).weights();
  EXPECT_EQ(run_steps("bf16_master", 1003, 100, 1e-4).weights(), exact);
  EXPECT_EQ(run_steps("bf16_correction16", 1003, 100, 1e-4).weights(), exact);
}

// A master's bf16 weights are its own, rounded to nearest even.
TEST(Weights, VisibleWeightsAreTheRoundedOnes) {
  for (const char* name : {"bf16_master", "bf16_correction16", "bf16_correction8"}) {
    CaseRun run = run_steps(name, 1003, 20, 1e-3);
    const auto weights = run.weights();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const float seen =
          math::bf16_to_float(math::load_bf16(run.data().data(), static_cast<std::int64_t>(i)));
      const double ulp = std::ldexp(1.0, std::ilogb(weights[i]) - 7);
      ASSERT_LE(std::abs(double{seen} - weights[i]), ulp / 2) << name << " " << weights[i];
    }
  }
}

// 8 correction bits: 16 bits of mantissa, so updates of 1e-4 on weights up to 2 count. Plain bf16
// loses what is under half a unit in the last place: the control.
TEST(Weights, EightCorrectionBitsKeepSmallUpdatesAndPlainBf16DoesNot) {
  const auto exact = run_steps("fp32", 2048, 300, 1e-4).weights();
  const double corrected =
      largest_difference(run_steps("bf16_correction8", 2048, 300, 1e-4).weights(), exact);
  const double plain =
      largest_difference(run_steps("bf16_nearest", 2048, 300, 1e-4).weights(), exact);
  EXPECT_GT(plain, 5 * corrected);
}

// Stochastic rounding: the mean over many elements of equal weights follows the exact update.
TEST(Weights, StochasticRoundingIsUnbiased) {
  for (const char* name : {"bf16_stochastic", "int8_stochastic"}) {
    const std::size_t n = 1 << 16;
    TensorCase setup;
    setup.rule = "sgd", setup.weights = name, setup.format = "fp32";
    setup.hypers = {{"learning_rate", 1}, {"momentum", 0}, {"weight_decay", 0}};
    std::vector<float> start(n, 1.0F);
    start[0] = 2.0F;  // fixes the scale of int8's first block
    CaseRun run(setup, start);
    const std::vector<float> before = run.weights();
    std::vector<float> grad(n, 1e-4F);
    run.step(grad, 1.0);
    const std::vector<float> after = run.weights();
    double mean = 0, moved = 0;
    for (std::size_t i = 0; i < n; ++i) {
      mean += (double{after[i]} - before[i]) / static_cast<double>(n);
      moved += after[i] != before[i] ? 1 : 0;
    }
    // One unit in the last place of bf16 below 1 is 2^-8; of int8 here 1/127. The deviation of the
    // mean of n draws is unit * sqrt(p / n).
    EXPECT_NEAR(mean, -1e-4, 2e-5) << name;
    EXPECT_GT(moved, 100) << name;
    if (std::string(name) == "bf16_stochastic") {  // int8's scales move, and all values with them
      EXPECT_LT(moved, static_cast<double>(n) / 4);
    }
  }
}

// The same random numbers for the same seed, tensor and step; others for another.
TEST(Weights, RandomNumbersAreNamedBySeedTensorAndStep) {
  const auto weights_with = [](std::uint64_t seed, const char* name, std::int64_t step) {
    auto desc = api::make<nibble_optimizer_desc>();
    desc.rule = "sgd", desc.state_format = "fp32", desc.weight_format = "bf16_stochastic";
    desc.seed = seed;
    api::Optimizer optimizer(desc);
    std::vector<math::bf16> weights(5000, math::float_to_bf16(1.0F));
    const std::vector<math::bf16> grads(5000, math::float_to_bf16(0.1F));
    optimizer.add(name, {5000}, weights.data());
    api::check(nibble_optimizer_set_step_count(optimizer.get(), step));
    optimizer.step({grads.data()});
    return weights;
  };
  EXPECT_EQ(weights_with(1, "a", 3), weights_with(1, "a", 3));
  EXPECT_NE(weights_with(1, "a", 3), weights_with(2, "a", 3));
  EXPECT_NE(weights_with(1, "a", 3), weights_with(1, "b", 3));
  EXPECT_NE(weights_with(1, "a", 3), weights_with(1, "a", 4));
}

TEST(Weights, CorrectionsHoldEveryFloat) {
  using Exact = math::Bf16Correction<16>;
  for (std::uint64_t i = 0; i < 200000; ++i) {
    const auto bits = static_cast<std::uint32_t>(golden_bits(3, 1, i));
    const float x = math::float_of(bits);
    const auto parts = Exact::split(x);
    ASSERT_LE(std::abs(parts.correction + 0.5), 32768.0);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(Exact::join(parts.weight, parts.correction)));
    } else {
      ASSERT_EQ(math::bits_of(Exact::join(parts.weight, parts.correction)), bits);
    }
  }
}

}  // namespace
}  // namespace nibble::test
