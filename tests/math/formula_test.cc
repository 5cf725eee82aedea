// SPDX-License-Identifier: Apache-2.0
// Every map against its formula in double, written from the papers that the maps' files name; the
// rules' defaults, limits and schedules.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "math/maps/dynamic.h"
#include "math/maps/geometric8.h"
#include "math/maps/linear.h"
#include "math/maps/minifloat.h"
#include "math/rules/rules.h"

namespace nibble::math {
namespace {

void expect_values(const CodeMap& map, const std::vector<double>& values, double relative) {
  for (std::size_t k = 0; k < values.size(); ++k) {
    ASSERT_NEAR(map.value[k], values[k], relative * std::abs(values[k])) << k;
  }
  std::vector<double> sorted(values);
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  EXPECT_EQ(map.levels, static_cast<int>(sorted.size()));
  EXPECT_NEAR(map.top, sorted.back(), relative);
  EXPECT_EQ(map.has_zero(), std::count(sorted.begin(), sorted.end(), 0.0) == 1);
  // A bound is the middle of its neighbours; above the last there is none.
  for (std::size_t r = 0; r + 1 < sorted.size(); ++r) {
    const double middle = (sorted[r] + sorted[r + 1]) / 2;
    const double size = std::max(std::abs(sorted[r]), std::abs(sorted[r + 1]));
    ASSERT_NEAR(map.bound[r], middle, 2e-7 * size) << r;
  }
  EXPECT_TRUE(std::isinf(map.bound[sorted.size() - 1]));
}

TEST(Maps, FollowTheirFormulas) {
  const double ulp = 0x1p-24;  // of a correctly rounded float
  std::vector<double> values;
  for (int k = 0; k < 255; ++k) {
    values.push_back((k - 127) / 127.0);
  }
  expect_values(kLinear8Signed, values, ulp);
  EXPECT_EQ(kLinear8Signed.zero, 127);
  values.clear();
  for (int k = 0; k < 256; ++k) {
    values.push_back(k / 255.0);
  }
  expect_values(kLinear8Unsigned, values, ulp);
  values.clear();
  for (int k = 0; k < 16; ++k) {
    values.push_back((k + 1) / 16.0);
  }
  expect_values(kLinear4Unsigned, values, ulp);
  values.assign(1, 0.0);
  for (int k = 1; k < 256; ++k) {
    values.push_back(std::exp2((k - 255) / 8.0));
  }
  expect_values(kGeometric8, values, ulp);
}

// E4M3: bias 7, no infinities, one NaN a sign.
TEST(Maps, Fp8IsE4m3) {
  std::vector<double> values;
  for (int m = 0; m < 127; ++m) {
    const int exponent = m / 8;
    values.push_back(exponent == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m % 8, exponent - 10));
  }
  EXPECT_EQ(values.back(), 448.0);
  expect_values(kE4m3Unsigned, values, 0.0);
  for (std::size_t m = 0; m < 128; ++m) {
    if (m == 127) {
      EXPECT_TRUE(std::isnan(kE4m3Signed.value[m]) && std::isnan(kE4m3Signed.value[m + 128]));
      EXPECT_TRUE(std::isnan(kE4m3Unsigned.value[m]));
    } else {
      EXPECT_EQ(kE4m3Signed.value[m], values[m]);
      EXPECT_EQ(kE4m3Signed.value[m + 128], -values[m]);
    }
  }
  EXPECT_EQ(kE4m3Signed.levels, 253);
  EXPECT_EQ(kE4m3Signed.top, 448.0F);
}

// Decades of n evenly spaced values, the middles of n parts of [0.1, 1] (Dettmers et al.).
TEST(Maps, Dynamic4IsTheDynamicMapOfFourBits) {
  std::vector<double> values = {0.0, 1.0};
  for (int decade = 0; decade < 3; ++decade) {
    const int n = 1 << decade;
    for (int j = 0; j < n; ++j) {
      const double value = (0.1 + 0.9 * (j + 0.5) / n) * std::pow(10.0, decade - 2);
      values.push_back(value);
      values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  ASSERT_EQ(values.size(), 16U);
  expect_values(kDynamic4Signed, values, 2e-7);
  EXPECT_EQ(kDynamic4Signed.zero, 7);
}

// A hyper-parameter as it is documented: what it is when not given, and what is refused.
struct Documented {
  const char* name;
  double value, low, high;
};

// The defaults are those of the papers and of PyTorch: a change is a change of every user's run.
TEST(RuleTable, DefaultsAndLimits) {
  const double any = std::numeric_limits<double>::max();
  const double below_one = std::nextafter(1.0, 0.0);
  const auto lr = [&](double value) { return Documented{"learning_rate", value, 0, any}; };
  const auto eps = [&](double value) { return Documented{"eps", value, 0, any}; };
  const auto beta = [&](const char* name, double value) {
    return Documented{name, value, 0, below_one};
  };
  const auto flag = [](const char* name, double value) { return Documented{name, value, 0, 1}; };
  const Documented wd = {"weight_decay", 0, 0, any};
  const Documented b1 = beta("beta1", 0.9);
  const Documented b2 = beta("beta2", 0.999);
  const std::vector<std::pair<std::string, std::vector<Documented>>> rules = {
      {"adamw", {lr(1e-3), wd, b1, b2, eps(1e-8)}},
      {"adam", {lr(1e-3), wd, b1, b2, eps(1e-8)}},
      {"amsgrad", {lr(1e-3), wd, b1, b2, eps(1e-8)}},
      {"lion", {lr(1e-4), wd, b1, beta("beta2", 0.99)}},
      {"sgd", {lr(1e-2), wd, beta("momentum", 0.9), beta("dampening", 0), flag("nesterov", 0)}},
      {"adagrad", {lr(1e-2), wd, eps(1e-10), {"lr_decay", 0, 0, any}}},
      {"rmsprop", {lr(1e-2), wd, beta("alpha", 0.99), eps(1e-8), beta("momentum", 0)}},
      {"ademamix",
       {lr(1e-3),
        wd,
        b1,
        b2,
        beta("beta3", 0.9999),
        {"alpha", 5, 0, any},
        eps(1e-8),
        {"t_alpha", 0, 0, any},
        {"t_beta3", 0, 0, any}}},
      {"lamb", {lr(1e-3), wd, b1, b2, eps(1e-6)}},
      {"adafactor",
       {lr(1e-3),
        wd,
        beta("beta1", 0),
        {"eps", 1e-30, 1e-37, any},
        {"eps2", 1e-3, 0, any},
        {"clip_threshold", 1, 0, any},
        {"decay_rate", -0.8, -1e3, 0},
        flag("scale_parameter", 0),
        flag("relative_step", 0),
        flag("warmup_init", 0)}},
      {"muon",
       {lr(2e-2),
        wd,
        beta("momentum", 0.95),
        flag("nesterov", 1),
        {"ns_steps", 5, 1, 100},
        eps(1e-7),
        flag("match_rms", 0)}}};
  EXPECT_EQ(kRuleCount, static_cast<int>(rules.size()));
  for (const auto& [name, documented] : rules) {
    ASSERT_GE(find_rule(name), 0) << name;
    const RuleInfo& rule = kRules[find_rule(name)];
    ASSERT_EQ(rule.hypers, static_cast<int>(documented.size())) << name;
    for (std::size_t i = 0; i < documented.size(); ++i) {
      const HyperSpec& hyper = rule.hyper[i];
      EXPECT_STREQ(hyper.name, documented[i].name) << name;
      EXPECT_EQ(hyper.value, documented[i].value) << name << " " << hyper.name;
      EXPECT_EQ(hyper.low, documented[i].low) << name << " " << hyper.name;
      EXPECT_EQ(hyper.high, documented[i].high) << name << " " << hyper.name;
    }
  }
  EXPECT_EQ(find_rule("adamw2"), -1);
}

std::vector<float> terms_of(const char* name, const std::map<std::string, double>& changes,
                            std::int64_t step) {
  const RuleInfo& rule = kRules[find_rule(name)];
  std::vector<double> hypers;
  for (int i = 0; i < rule.hypers; ++i) {
    const auto at = changes.find(rule.hyper[i].name);
    hypers.push_back(at != changes.end() ? at->second : rule.hyper[i].value);
  }
  std::vector<float> terms(static_cast<std::size_t>(rule.terms));
  rule.prepare(hypers.data(), step, terms.data());
  return terms;
}

// Shazeer and Stern, algorithm 6 and section 8: min(1e-2, 1 / sqrt(t)), warmed up by 1e-6 t.
TEST(Schedules, AdafactorsRelativeStep) {
  for (const std::int64_t t : {1, 2, 5000, 9999, 10001, 20000, 1000000}) {
    const double root = 1.0 / std::sqrt(static_cast<double>(t));
    const auto plain = terms_of("adafactor", {{"relative_step", 1}}, t);
    EXPECT_FLOAT_EQ(plain[kMinusStep], static_cast<float>(-std::min(1e-2, root))) << t;
    const auto warm = terms_of("adafactor", {{"relative_step", 1}, {"warmup_init", 1}}, t);
    EXPECT_FLOAT_EQ(warm[kMinusStep],
                    static_cast<float>(-std::min(1e-6 * static_cast<double>(t), root)))
        << t;
    const auto fixed = terms_of("adafactor", {{"warmup_init", 1}, {"learning_rate", 0.25}}, t);
    EXPECT_EQ(fixed[kMinusStep], -0.25F) << t;
  }
}

// Without a first moment (beta1 = 0) there is no half-life to grow from: beta3 is used as it is.
// Without the slow one (alpha = 0) there is nothing to warm up.
TEST(Schedules, AdEMAMixWithoutOneOfItsMoments) {
  for (const std::int64_t t : {1, 10, 99, 100, 101}) {
    const auto plain = terms_of("ademamix", {{"beta1", 0}}, t);
    EXPECT_EQ(terms_of("ademamix", {{"beta1", 0}, {"t_beta3", 100}}, t), plain) << t;
    EXPECT_EQ(std::count(plain.begin(), plain.end(), 0.9999F), 1);
    for (const float term : terms_of("ademamix", {{"alpha", 0}}, t)) {
      EXPECT_TRUE(std::isfinite(term)) << t;
    }
  }
}

}  // namespace
}  // namespace nibble::math
