// SPDX-License-Identifier: Apache-2.0
// Every rule with each of its hyper-parameters off its default, one at a time.
#pragma once

#include "math/rules/rules.h"
#include "support/tensor_case.h"

namespace nibble::test {

struct HyperCase {
  TensorCase base, changed;  // `changed` is `base` but for one hyper-parameter
  std::string name;          // "adamw eps"
};

// A value that shows in a few steps over inputs of size 1.
inline double off_default(const math::HyperSpec& spec) {
  if (spec.low == 0 && spec.high == 1 && (spec.value == 0 || spec.value == 1)) {  // a switch
    return 1 - spec.value;
  }
  if (std::string(spec.name).rfind("eps", 0) == 0) {
    return 2;
  }
  const double half = spec.whole ? std::floor(spec.value / 2) : spec.value / 2;
  return spec.value == 0 ? 0.5 : std::max(spec.low, half);
}

// What makes a hyper-parameter of a rule take part.
inline std::vector<nibble_hyper> all_in_use(const std::string& rule, const std::string& hyper) {
  if (rule == "sgd" || rule == "rmsprop") {
    return {{"momentum", 0.9}};
  }
  if (rule == "ademamix") {
    return {{"t_alpha", 4}, {"t_beta3", 4}};
  }
  if (rule == "adafactor") {
    return {{"beta1", 0.9},
            {"weight_decay", 0.1},
            {"relative_step", hyper == "warmup_init" ? 1.0 : 0.0},
            {"scale_parameter", hyper == "eps2" ? 1.0 : 0.0}};
  }
  return {};
}

inline std::vector<HyperCase> hyper_cases(std::int64_t rows) {
  std::vector<HyperCase> out;
  for (const math::RuleInfo& rule : math::kRules) {
    TensorCase base;
    base.rule = rule.name, base.format = "fp32";
    base.rows = math::is_element_rule(rule.kind) ? 0 : rows;
    for (int h = 0; h < rule.hypers; ++h) {
      base.hypers = all_in_use(rule.name, rule.hyper[h].name);
      HyperCase entry{base, base, std::string(rule.name) + " " + rule.hyper[h].name};
      auto& hypers = entry.changed.hypers;
      const auto known = std::find_if(hypers.begin(), hypers.end(), [&](const nibble_hyper& x) {
        return std::string(x.name) == rule.hyper[h].name;
      });
      if (known != hypers.end()) {
        known->value = known->value == 0 ? 1 : known->value / 2;
      } else {
        hypers.push_back({rule.hyper[h].name, off_default(rule.hyper[h])});
      }
      out.push_back(entry);
    }
  }
  return out;
}

}  // namespace nibble::test
