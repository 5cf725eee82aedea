// SPDX-License-Identifier: Apache-2.0
// Using nibble.h in tests: one-tensor optimizers, and settings restored at the end of a scope.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "nibble/nibble.hpp"

namespace nibble::test {

// Names of the instruction sets this machine can be forced to.
inline std::vector<std::string> usable_isas() {
  std::vector<std::string> out;
  for (const char* name : {"scalar", "avx2", "avx512_base", "avx512"}) {
    if (nibble_set_isa(name) == NIBBLE_OK) {
      out.emplace_back(name);
    }
  }
  nibble_set_isa(nullptr);
  return out;
}

class ScopedIsa {
 public:
  explicit ScopedIsa(const std::string& name) { api::check(nibble_set_isa(name.c_str())); }
  ~ScopedIsa() { nibble_set_isa(nullptr); }
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;
};

class ScopedThreads {
 public:
  explicit ScopedThreads(int count) { api::check(nibble_set_thread_count(count)); }
  ~ScopedThreads() { nibble_set_thread_count(0); }
  ScopedThreads(const ScopedThreads&) = delete;
  ScopedThreads& operator=(const ScopedThreads&) = delete;
};

// One optimizer over one tensor of its own weights. Shape: [n], or [rows, n / rows].
struct OneTensor {
  OneTensor(const nibble_optimizer_desc& desc, std::vector<float> initial, std::int64_t rows = 0)
      : weights(std::move(initial)), optimizer(desc) {
    const auto n = static_cast<std::int64_t>(weights.size());
    optimizer.add("w", rows > 0 ? std::vector<std::int64_t>{rows, n / rows} : std::vector{n},
                  weights.data());
  }

  bool step(const float* grad, double scale = 1.0) { return optimizer.step({grad}, scale); }

  // Every state array's bytes, in order.
  std::vector<std::vector<std::uint8_t>> states() const { return states_of(optimizer); }
  static std::vector<std::vector<std::uint8_t>> states_of(const api::Optimizer& optimizer) {
    std::vector<std::vector<std::uint8_t>> out;
    const auto n = static_cast<std::int64_t>(optimizer.info(0).n_states);
    for (std::int64_t i = 0; i < n; ++i) {
      const nibble_state_info info = optimizer.state(0, i);
      const auto* bytes = static_cast<const std::uint8_t*>(info.data);
      out.emplace_back(bytes, bytes + info.bytes);
    }
    return out;
  }

  // One state as `T`, found by its name; empty if there is none.
  template <class T>
  std::vector<T> state(const std::string& name) const {
    const auto n = static_cast<std::int64_t>(optimizer.info(0).n_states);
    for (std::int64_t i = 0; i < n; ++i) {
      const nibble_state_info info = optimizer.state(0, i);
      if (name == info.name) {
        std::vector<T> out(info.bytes / sizeof(T));
        std::memcpy(out.data(), info.data, info.bytes);
        return out;
      }
    }
    return {};
  }

  std::vector<float> weights;
  api::Optimizer optimizer;
};

inline std::vector<std::string> rule_names() {
  std::vector<std::string> out;
  for (std::int32_t i = 0; i < nibble_rule_count(); ++i) {
    out.emplace_back(nibble_rule_name(i));
  }
  return out;
}

// Formats that serve for states.
inline std::vector<std::string> state_format_names() {
  std::vector<std::string> out;
  for (std::int32_t i = 0; i < nibble_format_count(); ++i) {
    const std::string name = nibble_format_name(i);
    if (name != "nf4" && name != "fp4") {
      out.push_back(name);
    }
  }
  return out;
}

inline std::vector<std::string> weight_format_names() {
  std::vector<std::string> out;
  for (std::int32_t i = 0; i < nibble_weight_format_count(); ++i) {
    out.emplace_back(nibble_weight_format_name(i));
  }
  return out;
}

inline nibble_optimizer_desc adamw_desc(const char* format, const char* mode = "default") {
  auto desc = api::make<nibble_optimizer_desc>();
  desc.rule = "adamw";
  desc.state_format = format;
  desc.mode = mode;
  desc.min_quantized_elements = 1;
  desc.learning_rate = 1e-3;
  desc.weight_decay = 0.01;
  return desc;
}

}  // namespace nibble::test
