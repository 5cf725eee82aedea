// SPDX-License-Identifier: Apache-2.0
// What the metadata of a golden trajectory says about it: the optimizer, its inputs, and whether
// this version has what it takes.
#pragma once

#include <fmt/format.h>

#include <map>
#include <optional>

#include "support/golden.h"
#include "support/rule_oracle.h"
#include "support/tensor_case.h"

namespace nibble::test {

struct Recipe {
  TensorCase setup;
  std::map<std::string, double> hypers;
  bool defective = false;  // a peer's defect: class B only
  int steps = 0;
  std::string compare;
  std::vector<float> w0, grads;
};

inline std::string format_of(const std::string& name) {
  static const std::map<std::string, std::string> kNames = {{"fp32", "fp32"},
                                                            {"fp32_row", "fp32"},
                                                            {"fp32_col", "fp32"},
                                                            {"fp8_e4m3", "fp8"},
                                                            {"int4_de_signed", "int4"},
                                                            {"int4_linear_nozero", "int4"},
                                                            {"int8_dynamic_signed", "int8"},
                                                            {"int8_dynamic_unsigned", "int8"},
                                                            {"", ""}};
  const auto at = kNames.find(name);
  return at != kNames.end() ? at->second : "?";
}

inline std::map<std::string, double> read_hypers(const formats::Json& r, const std::string& rule) {
  std::map<std::string, double> out = hypers_of(rule);
  for (auto& [name, value] : out) {
    const char* key = name == "learning_rate" ? "lr" : name.c_str();
    if (r.contains(key) && r.at(key).is_number()) {
      value = r.at(key);
    } else if (r.contains(key) && r.at(key).is_boolean()) {
      value = r.at(key).get<bool>() ? 1 : 0;
    }
  }
  for (std::size_t i = 0; r.contains("betas") && i < r.at("betas").size(); ++i) {
    out[fmt::format("beta{}", i + 1)] = r.at("betas").at(i);
  }
  if (r.contains("eps") && r.at("eps").is_array()) {
    out["eps"] = r.at("eps").at(0), out["eps2"] = r.at("eps").at(1);
  }
  return out;
}

// Why a file is not for this version, or its recipe.
inline std::optional<Recipe> read_recipe(const GoldenFile& file, std::string& why) {
  const auto refuse = [&](const std::string& reason) {
    why = reason;
    return std::nullopt;
  };
  const std::string format1 = format_of(file.text("format1"));
  const std::string format2 = format_of(file.text("format2"));
  const std::string mode = file.text("mode");
  const auto rules = rule_names();
  Recipe out;
  out.setup.rule = file.text("rule");
  if (std::find(rules.begin(), rules.end(), out.setup.rule) == rules.end()) {
    return refuse("rule " + out.setup.rule);
  }
  if (format1 == "?" || format2 == "?" || (!format2.empty() && format1 != format2)) {
    return refuse("formats " + file.text("format1") + ", " + file.text("format2"));
  }
  out.defective = mode == "bnb_cpu_lookup";
  if (!out.defective && mode != "torch" && mode != "torchao" && mode != "bnb") {
    return refuse("mode " + mode);
  }
  const bool bf16 = file.text("weight_dtype") == "bf16";
  if (!bf16 && file.text("weight_dtype") != "fp32") return refuse(file.text("weight_dtype"));
  out.setup.format = format1;
  out.setup.mode = out.defective ? "default" : mode;
  out.setup.weights = bf16 ? "bf16_nearest" : "fp32";
  out.setup.bf16_grads = file.text("grad_dtype") == "bf16";
  const formats::Json& r = file.recipe;
  out.setup.block = r.contains("block") && r.at("block").is_number() && format1 != "fp32"
                        ? r.at("block").get<std::int64_t>()
                        : 0;
  out.setup.rows = r.contains("rows") ? r.at("rows").get<std::int64_t>() : 0;
  out.hypers = read_hypers(r, out.setup.rule);
  out.setup.nonfinite = NIBBLE_NONFINITE_SKIP_STEP;
  out.steps = r.at("steps");
  out.compare = file.text("compare");
  const GoldenFile inputs = open_golden(golden_dir() / file.text("inputs"));
  out.w0 = inputs.values<float>("w0");
  out.grads = inputs.values<float>("g");
  return out;
}

// The recipe's case in another mode.
inline TensorCase case_of(const Recipe& recipe, const std::string& mode) {
  TensorCase setup = recipe.setup;
  setup.mode = mode;
  setup.hypers = as_hypers(recipe.hypers);
  return setup;
}

inline std::vector<float> grad_at(const Recipe& recipe, int step) {
  const auto n = static_cast<std::ptrdiff_t>(recipe.w0.size());
  const auto begin = recipe.grads.begin() + (step - 1) * n;
  return {begin, begin + n};
}

}  // namespace nibble::test
