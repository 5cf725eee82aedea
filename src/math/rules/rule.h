// SPDX-License-Identifier: Apache-2.0
// What a rule tells about itself. The rules are the rows of rules.def.
//
// All rules share the weight's update; a rule gives the direction:
//     p' = fma(-step, direction, p * keep)      keep = 1 - lr * weight_decay (or 1)
// with `step` the rule's step size. Where the decay stands is the optimizer's choice (Decay).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace nibble::math {

inline constexpr int kMaxStates = 3;
inline constexpr int kMaxTerms = 12;
inline constexpr int kMaxHypers = 12;

enum class Decay : std::int32_t {
  kBefore = 0,        // decoupled: the weight is decayed, then updated (PyTorch's AdamW)
  kAfter = 1,         // decoupled: updated, then decayed (bitsandbytes on CUDA)
  kIntoGradient = 2,  // L2: weight_decay * p is added to the gradient
};

enum class RuleKind : std::int32_t {
  kElement = 0,     // every element by itself
  kTrustRatio = 1,  // an element rule whose step is scaled by a ratio of norms of the tensor
  kFactored = 2,    // matrices: a second moment of rows and columns (src/optim/factored.cc)
  kOrthogonal = 3,  // matrices: the momentum is orthogonalised (src/optim/orthogonal.cc)
};

// A hyper-parameter: low <= x <= high, and x < high where high is kBelowOne.
struct HyperSpec {
  const char* name = nullptr;
  double value = 0;  // the default
  double low = 0;
  double high = 0;
  bool whole = false;  // no fractions
};
inline constexpr double kAnyFinite = std::numeric_limits<double>::max();
inline constexpr double kBelowOne = 1.0 - std::numeric_limits<double>::epsilon() / 2;

// Every rule has these two, in these places.
inline constexpr int kLearningRate = 0;
inline constexpr int kWeightDecay = 1;
constexpr HyperSpec learning_rate_spec(double value) {
  return {"learning_rate", value, 0, kAnyFinite};
}
constexpr HyperSpec weight_decay_spec(double value = 0) {
  return {"weight_decay", value, 0, kAnyFinite};
}
constexpr HyperSpec beta_spec(const char* name, double value) {
  return {name, value, 0, kBelowOne};
}
constexpr HyperSpec eps_spec(double value) { return {"eps", value, 0, kAnyFinite}; }
constexpr HyperSpec switch_spec(const char* name, double value) {
  return {name, value, 0, 1, true};
}

struct StateSpec {
  const char* name = nullptr;  // also the key in checkpoints
  bool is_signed = false;      // which map a quantised format uses
  int needs = -1;  // a hyper-parameter: the state is left out where that is 0 at creation
};

// Term 0 of every rule: the weight moves by this times the direction.
inline constexpr int kMinusStep = 0;

struct RuleInfo {
  std::int32_t id;  // persistent
  const char* name;
  RuleKind kind;
  Decay decay;  // the rule's own; the optimizer's mode may say otherwise for decoupled ones
  int states;
  StateSpec state[kMaxStates];
  int hypers;
  HyperSpec hyper[kMaxHypers];
  int terms;
  // What is the same for every element of step `step` (from 1), computed once in double from the
  // hyper-parameters in the order of `hyper`.
  void (*prepare)(const double* hyper, std::int64_t step, float* terms);
};

}  // namespace nibble::math
