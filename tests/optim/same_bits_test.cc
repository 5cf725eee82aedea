// SPDX-License-Identifier: Apache-2.0
// The same bits for any instruction set and any number of threads, and after save and load.
#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <filesystem>
#include <limits>

#include "support/paths.h"
#include "support/tensor_case.h"

namespace nibble::test {
namespace {

void expect_same(const TensorCase& setup, const std::string& input, std::size_t n, int steps) {
  const auto with = [&](const std::string& isa) {
    const ScopedIsa forced(isa);
    return bytes_after(setup, input, n, steps);
  };
  const auto scalar = with("scalar");
  for (const std::string& isa : usable_isas()) {
    ASSERT_TRUE(scalar == with(isa)) << isa << " " << setup.name() << " " << input << " " << n;
  }
}

TEST(SameBits, EveryRuleFormatAndWeightChoice) {
  ASSERT_FALSE(usable_isas().empty());
  for (const TensorCase& setup : all_cases(13)) {
    for (const char* input : {"normal", "logscale", "outlier", "signed zeros"}) {
      expect_same(setup, input, 13 * 41, 3);
    }
  }
  for (const TensorCase& setup : all_cases(64)) {
    expect_same(setup, "normal", 64 * 257, 2);  // 16448: whole blocks and a tail
  }
}

// All three together, on shapes with a tail in every block and in every row.
TEST(SameBits, TheProductOfRulesFormatsAndWeights) {
  for (TensorCase setup : all_cases(13)) {
    const bool only_format = setup.mode == "default" && setup.weights == "fp32";
    for (const std::string& weights : weight_format_names()) {
      setup.weights = weights, setup.bf16_grads = weights.starts_with("bf16");
      if (only_format && weights != "fp32") {  // that is in all_cases itself
        expect_same(setup, "normal", 13 * 41, 3);
      }
    }
  }
}

TEST(SameBits, EveryFormatOverTailsAndAdversarialInputs) {
  for (const std::string& format : state_format_names()) {
    const bool rank1 = format == "int4_rank1";  // of a matrix: rows of every length
    for (std::size_t n = rank1 ? 2 : 1; n <= 257; ++n) {
      TensorCase setup;
      setup.format = format, setup.rows = rank1 ? 3 : 0;
      const std::size_t count = rank1 ? 3 * n : n;
      EXPECT_EQ(CaseRun(setup, make_input("normal", count)).optimizer().info(0).state_format,
                format);
      for (const char* input : kInputNames) {
        expect_same(setup, input, count, 2);
      }
    }
  }
  for (const auto& [mode, block] : {std::pair{"default", 32}, {"bnb", 256}, {"bnb", 2048}}) {
    for (const std::size_t n : {1000U, 4095U, 70001U}) {
      for (const char* input : kInputNames) {
        TensorCase setup;
        setup.mode = mode, setup.block = block;
        expect_same(setup, input, n, 2);
      }
    }
  }
}

TEST(SameBits, EveryWeightFormatOverTails) {
  for (const std::string& weights : weight_format_names()) {
    for (std::size_t n = 1; n <= 257; ++n) {
      for (const char* input : {"normal", "huge", "zeros"}) {
        TensorCase setup;
        setup.weights = weights, setup.bf16_grads = true, setup.hypers = {{"learning_rate", 0.1}};
        expect_same(setup, input, n, 2);
      }
    }
  }
}

TEST(SameBits, NonFiniteGradients) {
  const float all_ones =
      math::float_of(0x7fffffffU);  // a NaN that rounding could carry over into -0
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), all_ones}) {
    for (const auto policy : {NIBBLE_NONFINITE_PROPAGATE, NIBBLE_NONFINITE_SKIP_ELEMENT}) {
      for (TensorCase setup : all_cases(10)) {
        setup.rows = 10, setup.nonfinite = policy;
        setup.bf16_grads = setup.bf16_grads && math::bits_of(bad) != math::bits_of(all_ones);
        std::vector<std::vector<std::vector<std::uint8_t>>> outcomes;
        for (const std::string& isa : usable_isas()) {
          const ScopedIsa forced(isa);
          CaseRun run(setup, make_input("normal", 700));
          auto grad = make_input("normal", 700, 3);
          grad[5] = bad, grad[300] = -bad;
          run.step(grad);
          outcomes.push_back(run.bytes());
          EXPECT_TRUE(outcomes.front() == outcomes.back()) << isa << " " << setup.name();
        }
      }
    }
  }
}

TEST(SameBits, AnyThreadCount) {
  const auto x = make_input("logscale", 500003);
  std::vector<double> norms;
  for (const TensorCase& base : all_cases(300)) {
    const bool dear = base.rule == "muon" || base.mode != "default";
#if defined(__SANITIZE_THREAD__)
    const std::size_t n = dear ? 300 * 2 : 300 * 250;  // two ranges; ten times slower
#else
    const std::size_t n = dear ? 300 * 40 : 300 * 1000;
#endif
    std::vector<std::vector<std::vector<std::uint8_t>>> outcomes;
    for (const int threads : {1, 2, 7}) {
      const ScopedThreads scoped(threads);
      EXPECT_EQ(nibble_thread_count(), threads);
      outcomes.push_back(bytes_after(base, "normal", n, 2));
      ASSERT_TRUE(outcomes.front() == outcomes.back()) << threads << " " << base.name();
    }
  }
  for (const int threads : {1, 2, 3, 7, 16}) {
    const ScopedThreads scoped(threads);
    for (const std::string& isa : usable_isas()) {
      const ScopedIsa forced(isa);
      const void* tensors[] = {x.data(), x.data() + 1};
      const std::int64_t counts[] = {500003, 77};
      double norm = 0;
      api::check(nibble_global_norm(tensors, counts, nullptr, 2, &norm, nullptr));
      norms.push_back(norm);
      EXPECT_EQ(norms.front(), norm) << threads << " " << isa;
    }
  }
}

TEST(SameBits, WhateverTheCallersFloatingPointEnvironment) {
  const ScopedThreads one_thread(1);
  for (const TensorCase& setup : all_cases(10)) {
    const auto plain = bytes_after(setup, "denormal", 5000, 3);
    CaseRun run(setup, make_input("normal", 5000, 50));
    const unsigned saved = _mm_getcsr();
    const unsigned odd = saved | 0x8040U | 0x4000U;  // flush denormals to zero, round upwards
    for (std::uint64_t t = 1; t <= 3; ++t) {
      const auto grad = make_input("denormal", 5000, t);
      _mm_setcsr(odd);
      run.step(grad);
      const unsigned after = _mm_getcsr();
      _mm_setcsr(saved);
      EXPECT_EQ(after & 0xffc0U, odd & 0xffc0U) << "the caller's environment was not restored";
    }
    EXPECT_TRUE(plain == run.bytes()) << setup.name();
  }
}

// The same, of what is no step.
TEST(SameBits, OfConversionsWhateverTheEnvironment) {
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "rank1").string();
  TensorCase setup;
  setup.format = "int4_rank1", setup.rows = 50;
  CaseRun source(setup, make_input("normal", 5000));
  source.step(make_input("normal", 5000, 1));
  source.optimizer().save(path);
  setup.format = "fp32";
  auto quantize = api::make<nibble_quantize_desc>();
  quantize.format = "int8", quantize.is_signed = 1;
  std::vector<std::vector<std::uint8_t>> loaded[2];
  std::vector<float> scales[2];
  for (const bool is_odd : {false, true}) {
    CaseRun run(setup, make_input("normal", 5000));
    scales[is_odd] = make_input("normal", 1000, 3);
    std::vector<std::uint8_t> codes(1000);
    float nested[4] = {};
    float offset = 0;
    const unsigned saved = _mm_getcsr();
    _mm_setcsr(is_odd ? saved | 0x8040U | 0x4000U : saved);
    const nibble_status load = nibble_optimizer_load(run.optimizer().get(), path.c_str());
    const nibble_status compress = nibble_compress_scales(&quantize, scales[is_odd].data(), 1000,
                                                          codes.data(), nested, &offset);
    const nibble_status expand =
        nibble_expand_scales(&quantize, codes.data(), nested, &offset, 1000, scales[is_odd].data());
    _mm_setcsr(saved);
    EXPECT_EQ(load, NIBBLE_OK);
    EXPECT_EQ(compress, NIBBLE_OK);
    EXPECT_EQ(expand, NIBBLE_OK);
    loaded[is_odd] = run.bytes();
  }
  EXPECT_TRUE(loaded[0] == loaded[1]);
  EXPECT_TRUE(scales[0] == scales[1]);
}

TEST(SameBits, AfterSaveAndLoadOfEveryRuleAndFormat) {
  for (const TensorCase& setup : all_cases(10)) {
    const std::size_t n = 5010;
    CaseRun whole(setup, make_input("normal", n, 50));
    for (std::uint64_t t = 1; t <= 3; ++t) {
      whole.step(make_input("normal", n, t));
    }
    // By arrays, and by the library's own checkpoint.
    const TemporaryDirectory temporary;
    const auto directory = temporary.path() / "states";
    whole.optimizer().save(directory.string());
    for (const bool own : {false, true}) {
      CaseRun resumed(setup, make_input("normal", n, 51));
      resumed.data() = whole.data();
      resumed.scales() = whole.scales();
      if (own) {
        resumed.optimizer().load(directory.string());
      } else {
        const auto states = OneTensor::states_of(whole.optimizer());
        for (std::size_t i = 0; i < states.size(); ++i) {
          api::check(nibble_optimizer_load_state(resumed.optimizer().get(), 0,
                                                 static_cast<std::int64_t>(i), states[i].data(),
                                                 states[i].size()));
        }
        api::check(nibble_optimizer_set_step_count(resumed.optimizer().get(), 3));
      }
      EXPECT_TRUE(resumed.bytes() == whole.bytes()) << setup.name();
      CaseRun reference(setup, make_input("normal", n, 50));
      for (std::uint64_t t = 1; t <= 5; ++t) {
        reference.step(make_input("normal", n, t));
        if (t > 3) {
          resumed.step(make_input("normal", n, t));
        }
      }
      EXPECT_EQ(resumed.optimizer().step_count(), 5);
      EXPECT_TRUE(resumed.bytes() == reference.bytes()) << setup.name() << " own " << own;
    }
  }
}

}  // namespace
}  // namespace nibble::test
