// SPDX-License-Identifier: Apache-2.0
// What a rule tells about itself. The rules are the rows of rules.def.
#pragma once

#include <cmath>
#include <cstdint>

namespace nibble::math {

inline constexpr int kMaxStates = 2;
inline constexpr int kMaxTerms = 16;

// The hyper-parameters of one step, in double, as the caller gave them.
struct Hyper {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
};

struct StateSpec {
  const char* name;  // also the key in checkpoints
  bool is_signed;    // which map a quantised format uses
};

struct RuleInfo {
  std::int32_t id;  // persistent
  const char* name;
  int states;
  StateSpec state[kMaxStates];
  int terms;
  // What is the same for every element of step `step` (from 1), computed once in double.
  void (*prepare)(const Hyper& hyper, std::int64_t step, float* terms);
};

}  // namespace nibble::math
