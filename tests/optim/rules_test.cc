// SPDX-License-Identifier: Apache-2.0
// Every rule against an independent loop in double, for many steps without re-synchronising.
#include <gtest/gtest.h>

#include <cmath>

#include "support/rule_oracle.h"
#include "support/tensor_case.h"

namespace nibble::test {
namespace {

struct RuleCase {
  const char* rule;
  std::map<std::string, double> changes;
  std::size_t rows;
  double tolerance;  // of the weights, in units of the largest movement
};

// fp32 states: only rounding differs, but it adds up (1 - lr * decay as a float alone is off by up
// to 3e-8, a thousand times, on weights of 2); Lion's sign may flip where its argument is 0 to
// rounding; Muon's iteration is a chain of products that stretches what is small (2e-5 measured).
const RuleCase kCases[] = {
    {"adamw", {{"weight_decay", 0.01}}, 1, 3e-4},
    {"adamw", {{"beta1", 0.8}, {"beta2", 0.95}, {"eps", 1e-6}}, 1, 3e-4},
    {"adam", {{"weight_decay", 0.05}}, 1, 3e-4},
    {"amsgrad", {{"weight_decay", 0.01}}, 1, 3e-4},
    {"lion", {{"weight_decay", 0.1}}, 1, 5e-3},
    {"sgd", {{"weight_decay", 0.01}}, 1, 3e-4},
    {"sgd", {{"momentum", 0.8}, {"nesterov", 1}, {"dampening", 0}}, 1, 3e-4},
    {"sgd", {{"momentum", 0.9}, {"dampening", 0.3}}, 1, 3e-4},
    {"sgd", {{"momentum", 0}, {"weight_decay", 0.1}}, 1, 3e-4},
    {"sgd", {{"momentum", 0}, {"dampening", 0.5}, {"weight_decay", 0.1}}, 1, 3e-4},
    {"adagrad", {{"weight_decay", 0.01}, {"lr_decay", 1e-3}}, 1, 3e-4},
    {"rmsprop", {{"weight_decay", 0.01}, {"learning_rate", 1e-3}}, 1, 3e-4},
    {"rmsprop", {{"momentum", 0.9}, {"learning_rate", 1e-4}}, 1, 2e-4},
    {"ademamix", {{"weight_decay", 0.01}, {"beta3", 0.999}}, 1, 3e-4},
    {"lamb", {{"weight_decay", 0.01}}, 1, 2e-4},
    {"adafactor", {{"weight_decay", 0.01}}, 16, 3e-4},
    {"adafactor", {{"beta1", 0.9}, {"scale_parameter", 1}, {"learning_rate", 1e-2}}, 16, 2e-4},
    {"adafactor", {{"relative_step", 1}, {"weight_decay", 0.01}}, 16, 3e-4},
    {"adafactor",
     {{"relative_step", 1}, {"warmup_init", 1}, {"scale_parameter", 1}, {"beta1", 0.5}},
     16,
     3e-4},
    {"adafactor", {{"weight_decay", 0.01}}, 1, 3e-4},
    {"adafactor", {{"beta1", 0.9}, {"relative_step", 1}, {"warmup_init", 1}}, 1, 3e-4},
    {"muon", {{"weight_decay", 0.01}}, 16, 1e-4},
    {"muon", {{"nesterov", 0}, {"match_rms", 1}, {"learning_rate", 1e-3}}, 64, 1e-4},
};

struct Distance {
  double largest = 0, moved = 0;
};

struct Way {
  bool after = false;       // decay after the update
  bool with_holes = false;  // gradients with NaN and infinity, skipped
};

Distance distance(const RuleCase& c, const std::string& format, int steps, const Way& way = {}) {
  const std::size_t n = 512;
  const auto hypers = hypers_of(c.rule, c.changes);
  const auto start = make_input("normal", n, 50);
  TensorCase setup;
  setup.rule = c.rule, setup.format = format, setup.hypers = as_hypers(hypers);
  setup.rows = c.rows > 1 ? static_cast<std::int64_t>(c.rows) : 0;
  setup.mode = way.after ? "bnb-cuda" : "default";
  setup.nonfinite = way.with_holes ? NIBBLE_NONFINITE_SKIP_ELEMENT : NIBBLE_NONFINITE_PROPAGATE;
  CaseRun run(setup, start);
  RuleOracle oracle(c.rule, hypers, start, c.rows);
  oracle.decay_after = way.after;
  for (int t = 1; t <= steps; ++t) {
    auto grad = make_input("normal", n, static_cast<std::uint64_t>(t));
    for (std::size_t i = static_cast<std::size_t>(t) % 7; way.with_holes && i < n; i += 7) {
      grad[i] = i % 2 == 0 ? NAN : INFINITY;
    }
    EXPECT_TRUE(run.step(grad, 1.0));
    oracle.step(grad.data());
  }
  Distance out;
  const auto weights = run.weights();
  for (std::size_t i = 0; i < n; ++i) {
    out.largest = std::max(out.largest, std::abs(double{weights[i]} - oracle.w[i]));
    out.moved = std::max(out.moved, std::abs(double{start[i]} - oracle.w[i]));
  }
  return out;
}

TEST(Rules, FollowTheDoubleLoopForAThousandSteps) {
  for (const RuleCase& c : kCases) {
    const Distance d = distance(c, "fp32", 1000);
    EXPECT_LE(d.largest, c.tolerance * d.moved) << c.rule;
    EXPECT_GT(d.moved, 1e-3) << c.rule << ": hardly moved, the comparison says nothing";
  }
}

// On every instruction set; what one of them leaves behind in memory must not count.
TEST(Rules, SkippedElementsAreThoseOfTheDoubleLoop) {
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    for (const RuleCase& c : kCases) {
      const Distance d = distance(c, "fp32", 30, {.with_holes = true});
      constexpr double kRounding =
          1e-6;  // 30 times half a unit in the last place of weights near 2
      EXPECT_LE(d.largest, c.tolerance * d.moved + kRounding) << c.rule << " " << isa;
      EXPECT_GT(d.moved, 1e-5) << c.rule;
    }
  }
}

// What quantised states cost: a few per cent of the movement in 8 bits, more in 4.
TEST(Rules, QuantisedStatesStayByTheDoubleLoop) {
  for (const RuleCase& c : kCases) {
    if (std::string(c.rule) == "muon" || std::string(c.rule) == "lion") {
      continue;  // signs and singular vectors amplify: the quality bench judges those
    }
    for (const auto& [format, share] :
         {std::pair{"bf16", 0.2}, {"fp8", 0.2}, {"int8", 0.1}, {"int8_log", 0.15}, {"int4", 0.5}}) {
      const Distance d = distance(c, format, 200);
      EXPECT_LE(d.largest, share * d.moved) << c.rule << " " << format;
    }
  }
}

TEST(Rules, DecayAfterTheUpdate) {
  const RuleCase c = {"adamw", {{"weight_decay", 0.5}, {"learning_rate", 1e-2}}, 1, 0};
  const Distance d = distance(c, "fp32", 300, {.after = true});
  EXPECT_LE(d.largest, 1e-4 * d.moved);
  TensorCase before, after;
  before.format = after.format = "fp32";
  before.hypers = after.hypers = {{"weight_decay", 0.5}, {"learning_rate", 1e-2}};
  after.mode = "bnb-cuda";
  EXPECT_TRUE(bytes_after(before, "normal", 100, 3) != bytes_after(after, "normal", 100, 3));
}

// LAMB's decay stands within its trust ratio, in bitsandbytes' mode too.
TEST(Rules, LambDecaysWithinItsTrustRatioInEveryMode) {
  TensorCase plain, cuda;
  plain.rule = cuda.rule = "lamb", plain.format = cuda.format = "fp32";
  plain.hypers = cuda.hypers = {{"weight_decay", 0.5}, {"learning_rate", 1e-2}};
  cuda.mode = "bnb-cuda";
  EXPECT_TRUE(bytes_after(plain, "normal", 100, 3) == bytes_after(cuda, "normal", 100, 3));
}

// Eq. 4 of the AdEMAMix paper, in double; where beta1 or beta3 is 0 there is no half-life to warm
// up.
void expect_ademamix_warms_up(double b1, double last_b3) {
  const std::size_t n = 64;
  const auto start = make_input("normal", n, 50);
  const auto hypers =
      hypers_of("ademamix", {{"t_alpha", 50}, {"t_beta3", 40}, {"beta1", b1}, {"beta3", last_b3}});
  TensorCase setup;
  setup.rule = "ademamix", setup.format = "fp32", setup.hypers = as_hypers(hypers);
  CaseRun run(setup, start);
  std::vector<double> w(start.begin(), start.end()), m1(n), m2(n), v(n);
  for (int t = 1; t <= 100; ++t) {
    const auto g = make_input("normal", n, static_cast<std::uint64_t>(t));
    run.step(g, 1.0);
    const double alpha = std::min(t * 5.0 / 50, 5.0);
    const double share = std::min(t / 40.0, 1.0);
    double b3 = last_b3;
    if (b1 > 0 && b3 > 0) {
      const double from = std::log(b1), to = std::log(last_b3);
      b3 = std::min(last_b3, std::exp(from * to / ((1 - share) * to + share * from)));
    }
    for (std::size_t i = 0; i < n; ++i) {
      m1[i] = b1 * m1[i] + (1 - b1) * g[i];
      m2[i] = b3 * m2[i] + (1 - b3) * g[i];
      v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
      const double root = std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8;
      w[i] -= 1e-3 * (m1[i] / (1 - std::pow(b1, t)) + alpha * m2[i]) / root;
    }
  }
  const auto weights = run.weights();
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_NEAR(weights[i], w[i], 1e-5) << b1 << " " << last_b3;
  }
}

TEST(Rules, AdEMAMixWarmsUp) {
  expect_ademamix_warms_up(0.9, 0.999);
  expect_ademamix_warms_up(0.0, 0.999);
  expect_ademamix_warms_up(0.9, 0.0);
  expect_ademamix_warms_up(0.0, 0.0);
}

// Singular values near 1, whatever those of the gradient: the point of the iteration.
TEST(Rules, MuonOrthogonalises) {
  TensorCase setup;
  setup.rule = "muon", setup.format = "fp32", setup.rows = 24;
  setup.hypers = {{"learning_rate", 1}, {"weight_decay", 0}};
  const std::size_t n = 24 * 48;
  CaseRun run(setup, std::vector<float>(n, 0.0F));
  run.step(make_input("normal", n, 3), 1.0);
  const auto x = run.weights();
  for (std::size_t a = 0; a < 24; ++a) {
    for (std::size_t b = 0; b < 24; ++b) {
      double dot = 0;
      for (std::size_t c = 0; c < 48; ++c) {
        dot += double{x[a * 48 + c]} * x[b * 48 + c];
      }
      if (a == b) {
        EXPECT_GT(dot, 0.4);
        EXPECT_LT(dot, 1.6);
      } else {
        EXPECT_LT(std::abs(dot), 0.4);
      }
    }
  }
}

}  // namespace
}  // namespace nibble::test
