// SPDX-License-Identifier: Apache-2.0
// The CPU's row-wise operations against plain double loops, at sizes that are no multiple of
// anything. Gradients against central finite differences of the double loops.
#include <gtest/gtest.h>

#include <numeric>

#include "model/ops_support.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRows = 37, kCols = 45;

// out = x * weight / sqrt(mean(x^2) + eps) for one row.
std::vector<double> rms_norm(const std::vector<double>& x, const std::vector<double>& weight,
                             double eps) {
  double squares = 0;
  for (const double value : x) {
    squares += value * value;
  }
  std::vector<double> out;
  for (std::size_t j = 0; j < x.size(); ++j) {
    out.push_back(x[j] * weight[j] / std::sqrt(squares / static_cast<double>(x.size()) + eps));
  }
  return out;
}

class RowOps : public testing::TestWithParam<DType> {
 protected:
  RowOps() {
    if (GetParam() == DType::kBf16 && !backend::cpu_has_bf16()) {
      return;  // the tests skip
    }
    ops_ = backend::make_cpu_model_ops(GetParam());
  }
  void SetUp() override {
    if (!ops_) {
      GTEST_SKIP() << "this processor has no bf16 products";
    }
  }
  DType act() const { return GetParam(); }
  // fp32's rounding, or one rounding to bf16, of values of about 1.
  double tolerance() const { return act() == DType::kF32 ? 2e-6 : 1.0 / 256; }

  std::unique_ptr<backend::ModelOps> ops_;
};

TEST_P(RowOps, RmsNorm) {
  const TestMatrix x(kRows, kCols, 1), weight(1, kCols, 2);
  TestMatrix out(kRows, kCols, 0, act());
  std::vector<float> inverse(kRows);
  ops_->rms_norm(x.view(), weight.floats(), 1e-2F, out.view(), inverse);
  for (std::int64_t i = 0; i < kRows; ++i) {
    const std::vector<double> want = rms_norm(x.row(i), weight.row(0), 1e-2F);
    EXPECT_LT(difference(out.row(i), want), 2 * tolerance());
    const double middle =
        static_cast<double>(inverse[static_cast<std::size_t>(i)]) * x(i, 0) * weight(0, 0);
    EXPECT_NEAR(middle, want[0], 1e-6);
  }
}

TEST_P(RowOps, RmsNormGradientAddsTheDerivative) {
  const TestMatrix x(kRows, kCols, 1), weight(1, kCols, 2), dy(kRows, kCols, 3);
  TestMatrix out(kRows, kCols, 0, act()), dx(kRows, kCols, 4);
  std::vector<float> inverse(kRows);
  ops_->rms_norm(x.view(), weight.floats(), 1e-2F, out.view(), inverse);
  const TestMatrix before = dx;
  ops_->rms_norm_grad(dy.view(), x.view(), weight.floats(), inverse, dx.view());
  for (std::int64_t i = 0; i < kRows; i += 6) {
    const std::vector<double> d = dy.row(i);
    const auto loss = [&](const std::vector<double>& row) {
      const std::vector<double> y = rms_norm(row, weight.row(0), 1e-2F);
      return std::inner_product(y.begin(), y.end(), d.begin(), 0.0);
    };
    for (std::int64_t j = 0; j < kCols; ++j) {
      EXPECT_NEAR(dx(i, j) - before(i, j), slope(loss, x.row(i), j), 5e-6) << i << " " << j;
    }
  }
}

double silu_product(double gate, double up) { return gate / (1 + std::exp(-gate)) * up; }

TEST_P(RowOps, SwigluAndItsGradient) {
  TestMatrix gate(kRows, kCols, 1, act()), up(kRows, kCols, 2, act());
  const TestMatrix d_out(kRows, kCols, 3);
  gate.set(0, 0, -90);  // exp overflows there in fp32
  gate.set(0, 1, 90);
  gate.set(0, 2, 0);
  TestMatrix out(kRows, kCols, 0, act()), d_gate(kRows, kCols, 0, act()),
      d_up(kRows, kCols, 0, act());
  ops_->swiglu(gate.view(), up.view(), out.view());
  ops_->swiglu_grad(d_out.view(), gate.view(), up.view(), d_gate.view(), d_up.view());
  constexpr double kStep = 1e-5;
  for (std::int64_t i = 0; i < kRows; ++i) {
    for (std::int64_t j = 0; j < kCols; ++j) {
      const double g = gate(i, j), u = up(i, j), d = d_out(i, j), want = silu_product(g, u);
      const double dg = d * (silu_product(g + kStep, u) - silu_product(g - kStep, u)) / (2 * kStep);
      const double du = d * (silu_product(g, u + kStep) - silu_product(g, u - kStep)) / (2 * kStep);
      const auto near = [&](double a, double b) {
        EXPECT_NEAR(a, b, tolerance() * std::max(1.0, std::fabs(b))) << i << " " << j;
      };
      near(out(i, j), want);
      near(d_gate(i, j), dg);
      near(d_up(i, j), du);
    }
  }
}

TEST_P(RowOps, SoftmaxCrossEntropy) {
  constexpr std::int64_t kVocabulary = 9001;  // more than two pieces of 4096, odd
  constexpr float kScale = 0.37F;
  TestMatrix logits(5, kVocabulary, 1);
  std::vector<std::int32_t> targets = {0, 9000, 4096, 17, 8191};
  for (std::int64_t j = 0; j < kVocabulary; ++j) {
    logits.set(0, j, 20 * logits(0, j));              // spread
    logits.set(1, j, logits(1, j) + 1000);            // far from zero
    logits.set(2, j, j == 4096 ? 50 : -50);           // certain
    logits.set(3, j, j == 99 ? 80.0 : logits(3, j));  // certain and wrong
  }
  for (const bool over : {false, true}) {  // the gradient may lie over the logits
    TestMatrix work = logits, apart(5, kVocabulary, 0, act());
    std::vector<double> loss(5);
    const std::int64_t stride = kVocabulary * (act() == DType::kF32 ? 1 : 2);
    const Matrix grad =
        over ? Matrix{work.view().data, act(), 5, kVocabulary, stride} : apart.view();
    ops_->softmax_cross_entropy(work.view(), targets, kScale, loss, grad);
    for (std::int64_t i = 0; i < 5; ++i) {
      double top = -INFINITY, sum = 0;
      for (std::int64_t j = 0; j < kVocabulary; ++j) {
        top = std::max(top, logits(i, j));
      }
      for (std::int64_t j = 0; j < kVocabulary; ++j) {
        sum += std::exp(logits(i, j) - top);
      }
      const std::int64_t target = targets[static_cast<std::size_t>(i)];
      const double want = top + std::log(sum) - logits(i, target);
      EXPECT_NEAR(loss[static_cast<std::size_t>(i)], want, 1e-6 * (1 + std::fabs(want))) << i;
      double worst = 0;
      for (std::int64_t j = 0; j < kVocabulary; ++j) {
        const double p = std::exp(logits(i, j) - top) / sum - (j == target ? 1 : 0);
        worst = std::max(worst, std::fabs(element(grad, i, j) - static_cast<double>(kScale) * p) /
                                    std::max(std::fabs(p), 1e-3));
      }
      EXPECT_LT(worst, act() == DType::kF32 ? 1e-4 : 1.0 / 256) << i;
    }
  }
}

TEST_P(RowOps, RopeRotatesPairsAndTurnsBack) {
  constexpr std::int64_t kDim = 6, kHeads = 3, kFirst = 4;
  const std::vector<std::int64_t> starts = {0, 9, 10, 21};
  TestMatrix x(23, kDim * kHeads, 1, act()), cos(40, kDim / 2, 0), sin(40, kDim / 2, 0);
  for (std::int64_t p = 0; p < 40; ++p) {
    for (std::int64_t i = 0; i < kDim / 2; ++i) {
      cos.set(p, i, std::cos(0.1 * static_cast<double>(p * (i + 1))));
      sin.set(p, i, std::sin(0.1 * static_cast<double>(p * (i + 1))));
    }
  }
  const TestMatrix before = x;
  const AttentionShape shape{starts, kHeads, 1, kDim};
  ops_->rope(x.view(), shape, kFirst, cos.view(), sin.view(), false);
  for (std::int64_t t = 0; t < 23; ++t) {
    const std::int64_t start = t < 9 ? 0 : t < 10 ? 9 : 10;
    for (std::int64_t j = 0; j < kDim * kHeads; j += 2) {
      const double angle =
          t < 21 ? 0.1 * static_cast<double>((t - start + kFirst) * (j % kDim / 2 + 1))
                 : 0;  // rows past the sequences stay
      const double a = before(t, j), b = before(t, j + 1);
      EXPECT_NEAR(x(t, j), a * std::cos(angle) - b * std::sin(angle), 2 * tolerance());
      EXPECT_NEAR(x(t, j + 1), a * std::sin(angle) + b * std::cos(angle), 2 * tolerance());
    }
  }
  ops_->rope(x.view(), shape, kFirst, cos.view(), sin.view(), true);
  EXPECT_LT(difference(x.all(), before.all()), 4 * tolerance());
}

TEST_P(RowOps, DropoutKeepsTheMeanAndIsTheStreams) {
  constexpr std::int64_t kMany = 512;
  constexpr float kKeep = 0.7F;
  TestMatrix x(kMany, kCols, 0, act()), out(kMany, kCols, 9, act());
  for (std::int64_t i = 0; i < kMany; ++i) {
    for (std::int64_t j = 0; j < kCols; ++j) {
      x.set(i, j, 1);
    }
  }
  const math::RandomStream stream{123456789012345ULL, 17, 3, math::RandomPurpose::kDropout};
  ops_->dropout(x.view(), stream, kKeep, out.view());
  double sum = 0;
  for (const double value : out.all()) {
    EXPECT_TRUE(value == 0 || std::fabs(value - 1 / 0.7) < 0.004);
    sum += value;
  }
  // 23040 draws: 4.5 standard deviations of the mean are 4.5 * sqrt(.3 / .7 / n) = 0.0194, and bf16
  // holds 1 / 0.7 to 0.002.
  EXPECT_NEAR(sum / static_cast<double>(kMany * kCols), 1, 0.0194 + 0.003);
  for (std::int64_t i = 0; i < kMany; i += 7) {
    for (std::int64_t j = 0; j < kCols; ++j) {
      const auto at = static_cast<std::uint64_t>(i * kCols + j);
      EXPECT_EQ(out(i, j) != 0, stream.uniform(at) < kKeep);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, RowOps, testing::Values(DType::kF32, DType::kBf16), dtype_name);

}  // namespace
}  // namespace nibble::test
