// SPDX-License-Identifier: Apache-2.0
// All rules, for V = float and for the host: the table and the types.
#pragma once

#include <string_view>

#include "math/rules/rule.h"
#include "math/scalar.h"

namespace nibble::math {

#include "nibble_rule_files.inc"  // NOLINT: generated from rules.def

template <class Rule>
constexpr RuleInfo rule_info(std::int32_t id, const char* name) {
  constexpr int kHypers = static_cast<int>(sizeof(Rule::kHyper) / sizeof(HyperSpec));
  static_assert(Rule::kStates <= kMaxStates && int{Rule::kTerms} <= kMaxTerms);
  static_assert(kHypers <= kMaxHypers);
  RuleInfo info{id, name,    Rule::kKind, Rule::kDecay, Rule::kStates,
                {}, kHypers, {},          Rule::kTerms, &Rule::prepare};
  for (int i = 0; i < Rule::kStates; ++i) {
    info.state[i] = Rule::kState[i];
  }
  for (int i = 0; i < kHypers; ++i) {
    info.hyper[i] = Rule::kHyper[i];
  }
  return info;
}

inline constexpr RuleInfo kRules[] = {
#define NIBBLE_RULE(id, name, Type) rule_info<Type>(id, #name),
#include "math/rules/rules.def"
#undef NIBBLE_RULE
};

inline constexpr int kRuleCount = static_cast<int>(sizeof(kRules) / sizeof(kRules[0]));

// Index in kRules; -1 if there is none of that name.
inline int find_rule(std::string_view name) {
  for (int i = 0; i < kRuleCount; ++i) {
    if (name == kRules[i].name) {
      return i;
    }
  }
  return -1;
}

// Whether a rule runs element by element in a backend's step().
constexpr bool is_element_rule(RuleKind kind) {
  return kind == RuleKind::kElement || kind == RuleKind::kTrustRatio;
}

}  // namespace nibble::math
