// SPDX-License-Identifier: Apache-2.0
// Mode "bnb-cuda" against a scalar loop after bitsandbytes' CUDA kernel for blocks
// (csrc/kernels.cu, kOptimizerStatic8bit2StateBlockwise), codes and scales equal for a whole run.
// The kernel's own search for the nearest value is replaced by one over all of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "support/tensor_case.h"

namespace nibble::test {
namespace {

constexpr std::size_t kBlock = 256;

// One quantised state: m (signed map) or v (unsigned map).
class BnbState {
 public:
  BnbState(bool is_signed, std::size_t n) : signed_(is_signed), codes(n), absmax(blocks(n)) {
    auto desc = api::make<nibble_quantize_desc>();
    desc.is_signed = is_signed ? 1 : 0;
    api::check(nibble_format_map(&desc, map_.data(), nullptr));
    const auto zero = std::find(map_.begin(), map_.end(), 0.0F) - map_.begin();
    std::fill(codes.begin(), codes.end(), static_cast<std::uint8_t>(zero));
  }

  float value(std::size_t i) const { return map_[codes[i]] * absmax[i / kBlock]; }

  void store(const std::vector<float>& x) {
    for (std::size_t b = 0; b < absmax.size(); ++b) {
      const std::size_t last = std::min((b + 1) * kBlock, x.size());
      float largest = 0;
      for (std::size_t i = b * kBlock; i < last; ++i) {
        largest = std::max(largest, std::abs(x[i]));
      }
      absmax[b] = largest;
      for (std::size_t i = b * kBlock; i < last; ++i) {
        codes[i] = code_of(x[i], largest > 0 ? x[i] / largest : 0.0F);
      }
    }
  }

 private:
  static std::size_t blocks(std::size_t n) { return (n + kBlock - 1) / kBlock; }

  std::uint8_t code_of(float x, float normed) const {
    int best = 0;
    double least = 10;
    for (int c = 0; c < 256; ++c) {
      const double distance = std::abs(double{normed} - double{map_[static_cast<std::size_t>(c)]});
      if (distance < least || (distance == least && c % 2 == 0)) {
        best = c, least = distance;
      }
    }
    // "make sure that the sign is preserved": of the first moment only.
    if (signed_ && std::signbit(map_[static_cast<std::size_t>(best)]) != std::signbit(x)) {
      best += x > 0 ? 1 : -1;
    }
    return static_cast<std::uint8_t>(best);
  }

  bool signed_;
  std::array<float, 256> map_{};

 public:
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax;
};

struct Loop {
  explicit Loop(const std::vector<float>& start)
      : w(start.begin(), start.end()), m(true, start.size()), v(false, start.size()) {}

  void step(const std::vector<float>& grad, int t, double lr, double decay) {
    constexpr double kB1 = 0.9;
    constexpr double kB2 = 0.999;
    std::vector<float> first(w.size());
    std::vector<float> second(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      first[i] = m.value(i), second[i] = v.value(i);
      if (!std::isfinite(grad[i])) {  // "if(!isnan(g) && !isinf(g))"
        continue;
      }
      // nvcc contracts s1 * beta1 + (1 - beta1) * g into a fused multiply-add.
      first[i] = std::fma(static_cast<float>(kB1), first[i], static_cast<float>(1 - kB1) * grad[i]);
      second[i] = std::fma(static_cast<float>(kB2), second[i],
                           static_cast<float>(1 - kB2) * grad[i] * grad[i]);
      const double root = std::sqrt(second[i] / (1 - std::pow(kB2, t)));
      w[i] -= lr / (1 - std::pow(kB1, t)) * first[i] / (root + 1e-8);
      w[i] *= 1 - lr * decay;
    }
    m.store(first);
    v.store(second);
  }

  std::vector<double> w;
  BnbState m, v;
};

// Orders of magnitude within a block, zeros, ties and, at times, NaN.
std::vector<float> gradient(std::size_t n, int t) {
  const char* input = t % 5 == 1 ? "logscale" : (t % 5 == 2 ? "midpoints" : "normal");
  auto out = make_input(t % 10 == 4 ? "signed zeros" : input, n, static_cast<std::uint64_t>(t));
  for (float& g : out) {
    g = std::clamp(g, -1e3F, 1e3F);
  }
  if (t % 7 == 3) {
    out[static_cast<std::size_t>(t)] = NAN, out[n - 1] = INFINITY;
  }
  return out;
}

constexpr std::size_t kCount = 5 * kBlock + 77;

TensorCase case_of(const char* mode) {
  TensorCase setup;
  setup.mode = mode, setup.nonfinite = NIBBLE_NONFINITE_SKIP_ELEMENT;
  setup.hypers = {{"learning_rate", 1e-2}, {"weight_decay", 0.1}};
  return setup;
}

bool same_codes(const CaseRun& run, const Loop& loop) {
  const auto states = OneTensor::states_of(run.optimizer());
  return states[0] == loop.m.codes && states[2] == loop.v.codes;
}

TEST(BnbCuda, FollowsAScalarLoopCodeByCode) {
  const auto start = make_input("normal", kCount, 50);
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    CaseRun run(case_of("bnb-cuda"), start);
    Loop loop(start);
    for (int t = 1; t <= 150; ++t) {
      const auto grad = gradient(kCount, t);
      ASSERT_TRUE(run.step(grad, 1.0));
      loop.step(grad, t, 1e-2, 0.1);
      ASSERT_TRUE(same_codes(run, loop)) << isa << " step " << t;
      for (const auto& [state, at] : {std::pair{&loop.m, 1}, {&loop.v, 3}}) {
        const auto* scales = static_cast<const float*>(run.optimizer().state(0, at).data);
        ASSERT_TRUE(std::equal(state->absmax.begin(), state->absmax.end(), scales)) << t;
      }
      const auto weights = run.weights();
      for (std::size_t i = 0; i < kCount; ++i) {
        ASSERT_NEAR(weights[i], loop.w[i], 2e-7 * t * (1 + std::abs(loop.w[i]))) << isa << " " << i;
      }
    }
  }
}

// The control: the quantiser of another mode is told apart.
TEST(BnbCuda, IsNotAnotherMode) {
  const auto start = make_input("normal", kCount, 50);
  for (const char* mode : {"bnb", "default", "torchao"}) {
    CaseRun run(case_of(mode), start);
    Loop loop(start);
    bool same = true;
    for (int t = 1; t <= 20; ++t) {
      run.step(gradient(kCount, t), 1.0);
      loop.step(gradient(kCount, t), t, 1e-2, 0.1);
      same = same && same_codes(run, loop);
    }
    EXPECT_FALSE(same) << mode;
  }
}

}  // namespace
}  // namespace nibble::test
