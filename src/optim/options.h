// SPDX-License-Identifier: Apache-2.0
// What an optimizer is made from, and the checks of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/device.h"

namespace nibble::optim {

// Whose numerical conventions are followed (src/math/README.md).
enum class Mode { kDefault, kTorch, kTorchao, kBnb, kBnbCuda };
using backend::Nonfinite;

using HyperValues = std::vector<std::pair<std::string, double>>;

struct Options {
  std::string rule = "adamw";
  std::string state_format = "int8";
  std::string weight_format = "fp32";
  std::int64_t block = 0;  // 0: the format's own
  std::string mode = "default";
  std::string decay;  // "before", "after" or "" for the mode's
  HyperValues hypers;
  Nonfinite nonfinite = Nonfinite::kSkipStep;
  std::int64_t min_quantized_elements = 4096;
  std::uint64_t seed = 0;
  backend::Device* device = nullptr;  // where states are and steps run; null: the host
};

Mode find_mode(const std::string& name);
math::Rounding rounding_of(Mode mode);
// Throws Error(kUnsupported) if the mode has no such states.
void check_mode_format(Mode mode, const std::string& mode_name, int format, const std::string& who);
// Block sizes of quantised states: powers of two in [kMinBlock, kMaxBlock].
void check_block(std::int64_t block);

// The Form of a rule's step.
backend::Form form_of(const math::RuleInfo& rule, Mode mode, const std::string& decay);

int find_rule(const std::string& name);  // or Error(kUnsupported)
std::vector<double> default_hypers(const math::RuleInfo& rule);
// Index in the rule's hyper-parameters, or Error(kInvalidArgument) that lists them.
int find_hyper(const math::RuleInfo& rule, std::string_view name);
// In its range, and as a float, which is what kernels see, still finite and not 0 unless it is 0.
void check_hyper(const math::HyperSpec& spec, double value);
void check_float(std::string_view name, double value);
void set_hypers(const math::RuleInfo& rule, const HyperValues& values, std::vector<double>& out);

// A state format for each of the rule's states from "int8" or "exp_avg=int8,exp_avg_sq=fp32".
// States that are not named in the second form are fp32.
std::vector<int> parse_formats(const math::RuleInfo& rule, const std::string& text,
                               const std::string& who);

// The same for a text that is to be used with rules not known yet: of the first rule that has such
// states, `first` before all others; the error is that of `first`.
std::vector<int> parse_formats_of_any(int first, const std::string& text, const std::string& who);

// Whether `name` as a whole matches `pattern` with * and ?.
bool matches(std::string_view pattern, std::string_view name);

}  // namespace nibble::optim
