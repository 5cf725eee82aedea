// SPDX-License-Identifier: Apache-2.0
// The same bits for any instruction set and any number of threads, and after save and load.
#include <gtest/gtest.h>
#include <xmmintrin.h>

#include "support/capi.h"
#include "support/inputs.h"

namespace nibble::test {
namespace {

struct Outcome {
  std::vector<float> weights;
  std::vector<std::vector<std::uint8_t>> states;
};

bool same_bits(const Outcome& a, const Outcome& b) {
  return a.states == b.states &&
         std::memcmp(a.weights.data(), b.weights.data(), a.weights.size() * sizeof(float)) == 0;
}

Outcome run(const char* format, const char* mode, std::int64_t block, const std::string& input,
            std::size_t n, int steps) {
  nibble_optimizer_desc desc = adamw_desc(format, mode);
  desc.block_size = block;
  desc.nonfinite = NIBBLE_NONFINITE_PROPAGATE;
  OneTensor one(desc, make_input("normal", n, 50));
  for (int t = 0; t < steps; ++t) {
    const auto grad = make_input(input, n, static_cast<std::uint64_t>(t + 1));
    one.step(grad.data(), 0.5);
  }
  return {one.weights, one.states()};
}

TEST(SameBits, EveryInstructionSetOverTailsAndAdversarialInputs) {
  const auto isas = usable_isas();
  ASSERT_FALSE(isas.empty());
  std::vector<std::size_t> sizes = {1000, 4095, 70001};
  for (std::size_t n = 1; n <= 257; n += n < 70 ? 1 : 11) {
    sizes.push_back(n);
  }
  for (const std::size_t n : sizes) {
    for (const char* input : kInputNames) {
      for (const auto& [format, mode, block] : {std::tuple{"fp32", "default", 0},
                                                {"int8", "default", 256},
                                                {"int8", "bnb", 256},
                                                {"int8", "default", 32},
                                                {"int8", "bnb", 2048}}) {
        const auto with = [&](const std::string& isa) {
          const ScopedIsa forced(isa);
          return run(format, mode, block, input, n, n > 4096 ? 2 : 3);
        };
        const Outcome scalar = with("scalar");
        for (const std::string& isa : isas) {
          ASSERT_TRUE(same_bits(scalar, with(isa)))
              << isa << " " << format << " " << mode << " " << block << " " << input << " " << n;
        }
      }
    }
  }
}

TEST(SameBits, NonFiniteGradientsThatPropagate) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const char* mode : {"default", "bnb"}) {
      std::vector<std::vector<std::vector<std::uint8_t>>> states;
      for (const std::string& isa : usable_isas()) {
        const ScopedIsa forced(isa);
        nibble_optimizer_desc desc = adamw_desc("int8", mode);
        desc.nonfinite = NIBBLE_NONFINITE_PROPAGATE;
        OneTensor one(desc, make_input("normal", 700));
        auto grad = make_input("normal", 700, 3);
        grad[5] = bad;
        grad[300] = -bad;
        one.step(grad.data());
        states.push_back(one.states());
        EXPECT_EQ(states.front(), states.back()) << isa;
      }
    }
  }
}

TEST(SameBits, AnyThreadCount) {
  std::vector<Outcome> outcomes;
  std::vector<double> norms;
  const auto x = make_input("logscale", 500003);
  for (const int threads : {1, 2, 3, 7, 16}) {
    const ScopedThreads scoped(threads);
    EXPECT_EQ(nibble_thread_count(), threads);
    outcomes.push_back(run("int8", "default", 256, "normal", 300007, 3));
    EXPECT_TRUE(same_bits(outcomes.front(), outcomes.back())) << threads;
    for (const std::string& isa : usable_isas()) {
      const ScopedIsa forced(isa);
      const float* tensors[] = {x.data(), x.data() + 1};
      const std::int64_t counts[] = {500003, 77};
      double norm = 0;
      api::check(nibble_global_norm(tensors, counts, 2, &norm, nullptr));
      norms.push_back(norm);
      EXPECT_EQ(norms.front(), norm) << threads << " " << isa;
    }
  }
}

TEST(SameBits, WhateverTheCallersFloatingPointEnvironment) {
  const Outcome plain = run("int8", "default", 256, "denormal", 5000, 3);
  const ScopedThreads one_thread(1);
  OneTensor one(adamw_desc("int8"), make_input("normal", 5000, 50));
  const unsigned saved = _mm_getcsr();
  const unsigned odd = saved | 0x8040U | 0x4000U;  // flush denormals to zero, round upwards
  for (std::uint64_t t = 1; t <= 3; ++t) {
    const auto grad = make_input("denormal", 5000, t);
    _mm_setcsr(odd);
    one.step(grad.data(), 0.5);
    const unsigned after = _mm_getcsr();
    _mm_setcsr(saved);
    EXPECT_EQ(after & 0xffc0U, odd & 0xffc0U) << "the caller's environment was not restored";
  }
  EXPECT_TRUE(same_bits(plain, {one.weights, one.states()}));
}

TEST(SameBits, AfterSaveAndLoad) {
  for (const char* format : {"fp32", "int8"}) {
    const std::size_t n = 5001;
    OneTensor whole(adamw_desc(format), make_input("normal", n, 50));
    std::vector<std::vector<float>> grads;
    for (std::uint64_t t = 1; t <= 8; ++t) {
      grads.push_back(make_input("normal", n, t));
    }
    for (int t = 0; t < 4; ++t) {
      whole.step(grads[static_cast<std::size_t>(t)].data());
    }
    OneTensor resumed(adamw_desc(format), whole.weights);
    const auto states = whole.states();
    for (std::size_t i = 0; i < states.size(); ++i) {
      api::check(nibble_optimizer_load_state(resumed.optimizer.get(), 0,
                                             static_cast<std::int64_t>(i), states[i].data(),
                                             states[i].size()));
    }
    api::check(nibble_optimizer_set_step_count(resumed.optimizer.get(), 4));
    for (std::size_t t = 4; t < 8; ++t) {
      whole.step(grads[t].data());
      resumed.step(grads[t].data());
    }
    EXPECT_EQ(resumed.optimizer.step_count(), 8);
    EXPECT_TRUE(same_bits({whole.weights, whole.states()}, {resumed.weights, resumed.states()}));
  }
}

}  // namespace
}  // namespace nibble::test
