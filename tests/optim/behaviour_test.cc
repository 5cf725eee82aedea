// SPDX-License-Identifier: Apache-2.0
// What an optimizer promises, judged by independent loops in double.
#include <gtest/gtest.h>

#include <cmath>

#include "support/adamw_oracle.h"
#include "support/capi.h"
#include "support/inputs.h"

namespace nibble::test {
namespace {

TEST(AdamW, FollowsTheDoubleLoopForManySteps) {
  struct Case {
    const char* format;
    double beta1, beta2, decay, tolerance;
  };
  // 1 - lr * decay as a float is off by up to 3e-8, 1200 times, on weights up to 2. int8 states
  // cost more; the bound is a small part of the 0.6 that the weights may move.
  for (const Case& c : {Case{"fp32", 0.9, 0.999, 0.01, 1e-4}, Case{"fp32", 0.8, 0.95, 0.0, 2e-5},
                        Case{"int8", 0.9, 0.999, 0.01, 1.5e-2}}) {
    const std::size_t n = 513;
    nibble_optimizer_desc desc = adamw_desc(c.format);
    desc.beta1 = c.beta1, desc.beta2 = c.beta2, desc.weight_decay = c.decay;
    desc.learning_rate = 5e-4;
    OneTensor run(desc, make_input("normal", n, 50));
    AdamWOracle oracle = make_oracle(5e-4, c.beta1, c.beta2, 1e-8, c.decay, run.weights);
    for (std::uint64_t t = 1; t <= 1200; ++t) {
      const auto grad = make_input("normal", n, t);
      ASSERT_TRUE(run.step(grad.data()));
      oracle.step(grad.data());
    }
    double largest = 0, moved = 0;
    const auto start = make_input("normal", n, 50);
    for (std::size_t i = 0; i < n; ++i) {
      largest = std::max(largest, std::abs(double{run.weights[i]} - oracle.w[i]));
      moved = std::max(moved, std::abs(double{start[i]} - oracle.w[i]));
    }
    EXPECT_LT(largest, c.tolerance) << c.format;
    EXPECT_GT(moved, 0.01) << "the weights hardly moved: the comparison says nothing";
  }
}

TEST(Quantize, ErrorIsBoundedAndSignsStay) {
  for (const char* input : kInputNames) {
    for (std::size_t n = 1; n <= 257; ++n) {
      auto desc = api::make<nibble_quantize_desc>();
      desc.is_signed = 1;
      desc.block_size = 64;
      const auto x = make_input(input, n, n);
      std::vector<std::uint8_t> codes(n + 1, 0xA5);
      std::vector<float> absmax((n + 63) / 64 + 1, -7.0F), back(n + 1, -7.0F);
      const auto count = static_cast<std::int64_t>(n);
      ASSERT_EQ(nibble_quantize(&desc, x.data(), count, codes.data(), absmax.data()), NIBBLE_OK);
      ASSERT_EQ(nibble_dequantize(&desc, codes.data(), absmax.data(), count, back.data()),
                NIBBLE_OK);
      EXPECT_EQ(codes[n], 0xA5);  // nothing beyond the end
      EXPECT_EQ(absmax.back(), -7.0F);
      EXPECT_EQ(back[n], -7.0F);
      for (std::size_t i = 0; i < n; ++i) {
        // Half the widest gap of the signed map is 0.0071; denormal blocks lose all but the scale.
        const float scale = absmax[i / 64];
        if (scale >= 1e-38F) {
          ASSERT_LE(std::abs(double{back[i]} - x[i]), 0.00712 * scale) << input << " " << i;
        }
        ASSERT_FALSE(x[i] == 0.0F && back[i] != 0.0F);
        ASSERT_GE(double{back[i]} * x[i], 0.0);
      }
    }
  }
}

TEST(Quantize, DecodedValuesKeepTheirCodes) {
  for (const std::uint32_t is_signed : {0U, 1U}) {
    auto desc = api::make<nibble_quantize_desc>();
    desc.is_signed = is_signed;
    std::vector<std::uint8_t> codes(256), again(256);
    for (std::size_t k = 0; k < 256; ++k) {
      codes[k] = static_cast<std::uint8_t>(k);
    }
    const float absmax = 1.0F;
    float largest = 0;
    std::vector<float> values(256);
    ASSERT_EQ(nibble_dequantize(&desc, codes.data(), &absmax, 256, values.data()), NIBBLE_OK);
    ASSERT_EQ(nibble_quantize(&desc, values.data(), 256, again.data(), &largest), NIBBLE_OK);
    EXPECT_EQ(largest, 1.0F);
    EXPECT_EQ(codes, again);
  }
}

TEST(Quantize, DefaultModeNeverLosesAPositiveSecondMoment) {
  auto desc = api::make<nibble_quantize_desc>();
  const std::vector<float> x = {1.0F, 1e-30F, 0.0F, 1e-45F, 1e-7F, -0.0F};
  std::vector<std::uint8_t> codes(x.size());
  float absmax = 0;
  ASSERT_EQ(nibble_quantize(&desc, x.data(), 6, codes.data(), &absmax), NIBBLE_OK);
  EXPECT_EQ(codes, (std::vector<std::uint8_t>{255, 1, 0, 1, 1, 0}));
  desc.mode = "bnb";
  ASSERT_EQ(nibble_quantize(&desc, x.data(), 6, codes.data(), &absmax), NIBBLE_OK);
  EXPECT_EQ(codes, (std::vector<std::uint8_t>{255, 0, 0, 0, 0, 0}));
}

TEST(Quantize, BadElementsDoNotPoisonTheirBlockInDefaultMode) {
  auto desc = api::make<nibble_quantize_desc>();
  desc.is_signed = 1;
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {inf, std::nanf(""), -inf, 0.0F};
  std::vector<std::uint8_t> codes(4);
  std::vector<float> back(4);
  float absmax = 0;
  ASSERT_EQ(nibble_quantize(&desc, x.data(), 4, codes.data(), &absmax), NIBBLE_OK);
  ASSERT_EQ(nibble_dequantize(&desc, codes.data(), &absmax, 4, back.data()), NIBBLE_OK);
  EXPECT_EQ(back[0], std::numeric_limits<float>::max());
  EXPECT_EQ(back[1], 0.0F);
  EXPECT_LT(back[2], -3e38F);
  EXPECT_TRUE(std::isfinite(back[2]));
}

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
