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
  static_assert(Rule::kStates <= kMaxStates && int{Rule::kTerms} <= kMaxTerms);
  RuleInfo info{id, name, Rule::kStates, {}, Rule::kTerms, &Rule::prepare};
  for (int i = 0; i < Rule::kStates; ++i) {
    info.state[i] = Rule::kState[i];
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

}  // namespace nibble::math
