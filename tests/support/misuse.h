// SPDX-License-Identifier: Apache-2.0
// Wrong calls: the code, a message that names the fault, and nothing changed.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "support/capi.h"

namespace nibble::test {

inline void expect_failure(nibble_status got, nibble_status status, const std::string& message) {
  const std::string said = nibble_last_error();
  EXPECT_STREQ(nibble_status_name(got), nibble_status_name(status)) << said;
  EXPECT_NE(said.find(message), std::string::npos)
      << "\"" << said << "\" lacks \"" << message << "\"";
}

// All that a caller can see of an optimizer.
struct Snapshot {
  std::int64_t steps = 0;
  std::vector<std::string> infos;
  std::vector<double> hypers;
  std::vector<std::vector<std::uint8_t>> states;
  bool operator==(const Snapshot&) const = default;
};

inline Snapshot snapshot(const nibble_optimizer* opt) {
  Snapshot out;
  std::int64_t params = 0;
  api::check(nibble_optimizer_step_count(opt, &out.steps));
  api::check(nibble_optimizer_param_count(opt, &params));
  for (std::int64_t p = 0; p < params; ++p) {
    auto info = api::make<nibble_param_info>();
    api::check(nibble_optimizer_param_info(opt, p, &info));
    out.infos.push_back(std::string(info.name) + "," + info.state_format + "," + info.rule + "," +
                        info.weight_format + "," + info.reason + "," + std::to_string(info.count));
    for (std::uint32_t s = 0; s < info.n_states; ++s) {
      auto state = api::make<nibble_state_info>();
      api::check(nibble_optimizer_state_info(opt, p, s, &state));
      const auto* bytes = static_cast<const std::uint8_t*>(state.data);
      out.states.emplace_back(bytes, bytes + state.bytes);
    }
  }
  double value = 0;
  for (const char* name : {"learning_rate", "weight_decay", "beta1", "beta2", "eps"}) {
    for (std::int64_t group = 0;; ++group) {
      if (nibble_optimizer_get_group_hyper(opt, group, name, &value) != NIBBLE_OK) {
        break;
      }
      out.hypers.push_back(value);
    }
  }
  return out;
}

// Where a struct of the first version ended: what was appended since may be missing.
template <class T>
inline constexpr std::size_t kFirstSize = sizeof(T);
template <>
inline constexpr std::size_t kFirstSize<nibble_optimizer_desc> = offsetof(nibble_optimizer_desc,
                                                                          device);
template <>
inline constexpr std::size_t kFirstSize<nibble_step_desc> = offsetof(nibble_step_desc, stream);
template <>
inline constexpr std::size_t kFirstSize<nibble_quantize_desc> = offsetof(nibble_quantize_desc,
                                                                         device);

// `call` with every wrong struct_size, and with what a newer caller may give.
template <class T, class Call>
void expect_sizes_checked(const T& good, const Call& call) {
  for (const std::uint32_t size :
       {0U, 4U, static_cast<std::uint32_t>(kFirstSize<T>) - 1,
        static_cast<std::uint32_t>(sizeof(T)) - 4, 1U << 20, UINT32_MAX}) {
    T desc = good;
    desc.struct_size = size;
    expect_failure(call(&desc), NIBBLE_INVALID_ARGUMENT, "struct_size is " + std::to_string(size));
  }
  struct Newer {
    T known;
    std::uint64_t later[2];
  };
  Newer newer{good, {0, 0}};
  newer.known.struct_size = sizeof(Newer);
  newer.later[1] = 1;
  expect_failure(call(&newer.known), NIBBLE_UNSUPPORTED, "this version knows only the first");
  expect_failure(call(nullptr), NIBBLE_INVALID_ARGUMENT, "is null");
}

// The same for a struct that is filled; what a newer caller's has beyond ours stays.
template <class T, class Call>
void expect_info_sizes_checked(const Call& call) {
  for (const std::uint32_t size : {0U, 4U, static_cast<std::uint32_t>(sizeof(T)) - 1, UINT32_MAX}) {
    T info{};
    info.struct_size = size;
    expect_failure(call(&info), NIBBLE_INVALID_ARGUMENT, "struct_size is " + std::to_string(size));
    T untouched{};
    untouched.struct_size = size;
    EXPECT_EQ(std::memcmp(&info, &untouched, sizeof(T)), 0);
  }
  struct Newer {
    T known;
    std::uint64_t later;
  };
  Newer newer{{}, 77};
  newer.known.struct_size = sizeof(Newer);
  EXPECT_EQ(call(&newer.known), NIBBLE_OK);
  EXPECT_EQ(newer.known.struct_size, sizeof(Newer));
  EXPECT_EQ(newer.later, 77U);
  expect_failure(call(nullptr), NIBBLE_INVALID_ARGUMENT, "is null");
}

// An optimizer in use: "first" [64] int8, "second" [8, 8] fp32, bound, one step taken.
class UsedOptimizer : public ::testing::Test {
 protected:
  UsedOptimizer() {
    optimizer_.add("first", {64}, weights_.data(), "int8");
    optimizer_.add("second", {8, 8}, weights_.data() + 64, "fp32");
    for (std::size_t i = 0; i < grads_.size(); ++i) {
      grads_[i] = 0.01F * static_cast<float>(i) - 0.5F;
    }
    optimizer_.step({grads_.data(), grads_.data() + 64});
    before_ = snapshot(opt());
    weights_before_ = weights_;
  }

  nibble_optimizer* opt() const { return optimizer_.get(); }

  // Like expect_failure, and the optimizer and its weights are as they were.
  void refused(nibble_status got, nibble_status status, const std::string& message) {
    expect_failure(got, status, message);
    expect_unchanged(message);
  }
  void expect_unchanged(const std::string& after) const {
    EXPECT_TRUE(snapshot(opt()) == before_) << after;
    EXPECT_EQ(weights_, weights_before_) << after;
  }

  api::Optimizer optimizer_{adamw_desc("int8")};
  std::vector<float> weights_ = std::vector<float>(128, 1.0F);
  std::vector<float> grads_ = std::vector<float>(128);
  Snapshot before_;
  std::vector<float> weights_before_;
};

}  // namespace nibble::test
