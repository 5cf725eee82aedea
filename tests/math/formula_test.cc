// SPDX-License-Identifier: Apache-2.0
// Every map against its formula in double, written from the papers that the maps' files name; the
// rules' defaults.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
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

// The defaults are those of the papers and of PyTorch: a change is a change of every user's run.
TEST(RuleTable, DefaultsAndLimits) {
  const std::vector<std::pair<std::string, std::vector<double>>> defaults = {
      {"adamw", {1e-3, 0, 0.9, 0.999, 1e-8}},
      {"adam", {1e-3, 0, 0.9, 0.999, 1e-8}},
      {"amsgrad", {1e-3, 0, 0.9, 0.999, 1e-8}},
      {"lion", {1e-4, 0, 0.9, 0.99}},
      {"sgd", {1e-2, 0, 0.9, 0, 0}},
      {"adagrad", {1e-2, 0, 1e-10, 0}},
      {"rmsprop", {1e-2, 0, 0.99, 1e-8, 0}},
      {"ademamix", {1e-3, 0, 0.9, 0.999, 0.9999, 5, 1e-8, 0, 0}},
      {"lamb", {1e-3, 0, 0.9, 0.999, 1e-6}},
      {"adafactor", {1e-3, 0, 0, 1e-30, 1e-3, 1, -0.8, 0, 0, 0}},
      {"muon", {2e-2, 0, 0.95, 1, 5, 1e-7, 0}}};
  for (const auto& [name, values] : defaults) {
    const int at = find_rule(name);
    ASSERT_GE(at, 0) << name;
    const RuleInfo& rule = kRules[at];
    ASSERT_EQ(rule.hypers, static_cast<int>(values.size())) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const HyperSpec& hyper = rule.hyper[i];
      EXPECT_EQ(hyper.value, values[i]) << name << " " << hyper.name;
      const std::string hyper_name = hyper.name;
      const bool below_one = hyper_name.starts_with("beta") || hyper_name == "momentum" ||
                             hyper_name == "dampening" || (name == "rmsprop" && i == 2);
      if (below_one) {
        EXPECT_EQ(hyper.low, 0) << name << " " << hyper_name;
        EXPECT_EQ(hyper.high, std::nextafter(1.0, 0.0)) << name << " " << hyper_name;
      }
      EXPECT_LE(hyper.low, hyper.value);
      EXPECT_GE(hyper.high, hyper.value);
    }
  }
  EXPECT_EQ(kRuleCount, static_cast<int>(defaults.size()));
  EXPECT_EQ(find_rule("adamw2"), -1);
}

}  // namespace
}  // namespace nibble::math
