// SPDX-License-Identifier: Apache-2.0
// What surrounds the update: groups, clipping, missing gradients, formats by name, reports, sizes.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>

#include "support/tensor_case.h"

namespace nibble::test {
namespace {

nibble_optimizer_desc desc_of(const char* format) {
  nibble_optimizer_desc desc = adamw_desc(format);
  desc.weight_decay = 0;
  return desc;
}

std::string format_of(const api::Optimizer& optimizer, std::int64_t param) {
  return optimizer.info(param).state_format;
}

TEST(Groups, HaveHyperParametersAndRulesOfTheirOwn) {
  api::Optimizer optimizer(desc_of("fp32"));
  const std::int64_t slow = optimizer.add_group({{"learning_rate", 1e-5}});
  const std::int64_t lion = optimizer.add_group({{"learning_rate", 1e-2}}, "lion");
  std::vector<float> a(100, 1.0F), b(100, 1.0F), c(100, 1.0F);
  const std::vector<float> grad(100, 0.5F);
  optimizer.add("a", {100}, a.data());
  optimizer.add("b", {100}, b.data(), nullptr, slow);
  optimizer.add("c", {100}, c.data(), nullptr, lion);
  optimizer.step({grad.data(), grad.data(), grad.data()});
  EXPECT_NEAR(a[0], 1 - 1e-3, 1e-6);
  EXPECT_NEAR(b[0], 1 - 1e-5, 1e-7);
  EXPECT_NEAR(c[0], 1 - 1e-2, 1e-6);
  EXPECT_STREQ(optimizer.info(2).rule, "lion");
  EXPECT_EQ(optimizer.info(1).group, slow);
  optimizer.set_hyper("learning_rate", 0.5, lion);
  optimizer.step({grad.data(), grad.data(), grad.data()});
  EXPECT_NEAR(c[0], 1 - 1e-2 - 0.5, 1e-6);
  EXPECT_NEAR(a[0], 1 - 2e-3, 1e-5);
}

TEST(Clipping, ScalesByTheGlobalNorm) {
  for (const char* format : {"fp32", "int8"}) {
    std::vector<float> a(300, 1.0F), b(500, 1.0F), a2 = a, b2 = b;
    auto ga = make_input("normal", 300, 1);
    auto gb = make_input("normal", 500, 2);
    double norm = 0;
    for (const auto* g : {&ga, &gb}) {
      for (const float x : *g) {
        norm += double{x} * x;
      }
    }
    norm = 0.25 * std::sqrt(norm);
    api::Optimizer clipped(desc_of(format)), plain(desc_of(format));
    clipped.add("a", {300}, a.data());
    clipped.add("b", {500}, b.data());
    plain.add("a", {300}, a2.data());
    plain.add("b", {500}, b2.data());
    const void* grads[] = {ga.data(), gb.data()};
    double told = 0;
    auto step = api::make<nibble_step_desc>();
    step.grads = grads, step.n_grads = 2, step.grad_scale = 0.25;
    step.max_grad_norm = 1.0, step.out_grad_norm = &told;
    ASSERT_TRUE(clipped.step(step));
    EXPECT_NEAR(told, norm, 1e-6 * norm);
    const auto factor = static_cast<float>(1.0 / (told + 1e-6));
    ASSERT_TRUE(plain.step({ga.data(), gb.data()}, double{0.25F * factor}));
    EXPECT_EQ(a, a2);
    EXPECT_EQ(b, b2);
  }
}

// One NaN must not switch clipping off: the others are clipped by their own norm.
TEST(Clipping, OfSkippedElementsIsByTheNormOfTheOthers) {
  auto desc = desc_of("fp32");
  desc.rule = "sgd", desc.beta1 = 0, desc.learning_rate = 1;
  desc.nonfinite = NIBBLE_NONFINITE_SKIP_ELEMENT;
  auto grad = make_input("normal", 5000);
  double squares = 0;
  for (std::size_t i = 0; i < grad.size(); ++i) {
    if (i % 900 == 7) {
      grad[i] = i % 1800 == 7 ? NAN : -INFINITY;
    } else {
      squares += double{grad[i]} * grad[i];
    }
  }
  const double norm = 0.5 * std::sqrt(squares);
  OneTensor run(desc, std::vector<float>(5000, 0.0F));
  const void* grads[] = {grad.data()};
  double told = 0;
  std::int64_t bad = 0;
  auto step = api::make<nibble_step_desc>();
  step.grads = grads, step.n_grads = 1, step.grad_scale = 0.5, step.max_grad_norm = 0.25;
  step.out_grad_norm = &told, step.out_nonfinite = &bad;
  ASSERT_TRUE(run.optimizer.step(step));
  EXPECT_NEAR(told, norm, 1e-9 * norm);
  EXPECT_EQ(bad, 6);
  for (std::size_t i = 0; i < grad.size(); ++i) {
    const double moved = std::isfinite(grad[i]) ? -0.5 * grad[i] * 0.25 / norm : 0.0;
    ASSERT_NEAR(run.weights[i], moved, 1e-6 * std::abs(moved)) << i;
  }
}

// What is not finite once it is scaled is skipped, whatever clipping would make of it; and it does
// not clip the others.
TEST(Clipping, OfWhatOverflowsWhenScaled) {
  auto desc = desc_of("fp32");
  desc.rule = "sgd", desc.beta1 = 0, desc.learning_rate = 1;
  desc.nonfinite = NIBBLE_NONFINITE_SKIP_ELEMENT;
  std::vector<float> grad(8, 0.5F);
  grad[0] = 1e38F;
  OneTensor run(desc, std::vector<float>(8, 1.0F));
  const void* grads[] = {grad.data()};
  double norm = 0;
  std::int64_t bad = 0;
  auto step = api::make<nibble_step_desc>();
  step.grads = grads, step.n_grads = 1, step.grad_scale = 10, step.max_grad_norm = 1;
  step.out_grad_norm = &norm, step.out_nonfinite = &bad;
  ASSERT_TRUE(run.optimizer.step(step));
  EXPECT_EQ(bad, 1);
  EXPECT_NEAR(norm, 5 * std::sqrt(7.0), 1e-6);
  EXPECT_EQ(run.weights[0], 1.0F);
  for (std::size_t i = 1; i < 8; ++i) {
    EXPECT_NEAR(run.weights[i], 1 - 1 / std::sqrt(7.0), 1e-6) << i;
  }
}

TEST(Clipping, OfPropagatedNonFiniteGradients) {
  auto desc = desc_of("fp32");
  desc.rule = "sgd", desc.beta1 = 0, desc.learning_rate = 1;
  desc.nonfinite = NIBBLE_NONFINITE_PROPAGATE;
  std::vector<float> grad(8, 100.0F);
  grad[0] = NAN;
  OneTensor run(desc, std::vector<float>(8, 0.0F));
  const void* grads[] = {grad.data()};
  double norm = 0;
  auto step = api::make<nibble_step_desc>();
  step.grads = grads, step.n_grads = 1, step.max_grad_norm = 1, step.out_grad_norm = &norm;
  ASSERT_TRUE(run.optimizer.step(step));
  EXPECT_TRUE(std::isinf(norm));
  EXPECT_TRUE(std::isnan(run.weights[0]));
  for (std::size_t i = 1; i < 8; ++i) {
    EXPECT_NEAR(run.weights[i], -1 / std::sqrt(7.0), 1e-6) << i;
  }
}

// A finite gradient whose square overflows must not stay in the moments for ever.
TEST(Steps, AdafactorOutlivesAnOverflow) {
  for (const std::int64_t rows : {0, 16}) {
    auto desc = api::make<nibble_optimizer_desc>();
    desc.rule = "adafactor", desc.state_format = "fp32", desc.learning_rate = 0.1;
    OneTensor run(desc, std::vector<float>(256, 1.0F), rows);
    std::vector<float> grad(256, 1.0F);
    grad[77] = 1.5e20F;
    ASSERT_TRUE(run.step(grad.data()));
    grad[77] = 1.0F;
    const auto before = run.weights;
    for (int t = 0; t < 200; ++t) {
      ASSERT_TRUE(run.step(grad.data()));
    }
    for (std::size_t i = 0; i < 256; ++i) {
      EXPECT_TRUE(std::isfinite(run.weights[i])) << i;
    }
    EXPECT_LT(run.weights[0], before[0]);
    for (std::int64_t s = 0; s < run.optimizer.info(0).n_states; ++s) {
      const nibble_state_info moments = run.optimizer.state(0, s);
      for (std::int64_t i = 0; i < moments.count; ++i) {  // they forget
        EXPECT_LT(static_cast<const float*>(moments.data)[i], 1e35F) << moments.name << " " << i;
      }
    }
  }
}

TEST(Steps, FoundInfAndNonFiniteAreNotTaken) {
  OneTensor run(desc_of("int8"), make_input("normal", 5000, 50));
  const auto before = run.weights;
  const auto states = run.states();
  auto grad = make_input("normal", 5000);
  const void* grads[] = {grad.data()};
  auto step = api::make<nibble_step_desc>();
  const float found = 1.0F;
  std::int64_t bad = -1;
  step.grads = grads, step.n_grads = 1, step.found_inf = &found, step.out_nonfinite = &bad;
  EXPECT_EQ(nibble_optimizer_step(run.optimizer.get(), &step), NIBBLE_NON_FINITE);
  EXPECT_NE(std::string(nibble_last_error()).find("found_inf"), std::string::npos);
  step.found_inf = nullptr, step.max_grad_norm = 1.0;
  grad[7] = std::nanf("");
  double norm = 0;
  step.out_grad_norm = &norm;
  EXPECT_EQ(nibble_optimizer_step(run.optimizer.get(), &step), NIBBLE_NON_FINITE);
  EXPECT_EQ(bad, 1);
  EXPECT_TRUE(std::isinf(norm));
  EXPECT_EQ(run.weights, before);
  EXPECT_EQ(run.states(), states);
  EXPECT_EQ(run.optimizer.step_count(), 0);
}

TEST(Steps, MissingGradientsLeaveTheirParameterOut) {
  for (const char* rule : {"adamw", "lamb", "adafactor", "muon"}) {
    nibble_optimizer_desc desc = desc_of("int4_rank1");
    desc.rule = rule, desc.beta1 = 0, desc.beta2 = 0, desc.eps = 0;
    api::Optimizer optimizer(desc);
    std::vector<float> a(64 * 64, 1.0F), b(64 * 64, 1.0F);
    optimizer.add("a", {64, 64}, a.data());
    optimizer.add("b", {64, 64}, b.data());
    const auto grad = make_input("normal", 64 * 64);
    const void* grads[] = {nullptr, grad.data()};
    auto step = api::make<nibble_step_desc>();
    step.grads = grads, step.n_grads = 2, step.skip_missing = 1;
    ASSERT_TRUE(optimizer.step(step)) << rule;
    EXPECT_EQ(a, std::vector<float>(64 * 64, 1.0F)) << rule;
    EXPECT_NE(b, a) << rule;
  }
}

TEST(Steps, AccumulationIsFusedInFloat) {
  std::vector<float> sum = make_input("normal", 1003, 5);
  std::vector<math::bf16> narrow(1003);
  const auto x = make_input("normal", 1003, 6);
  std::vector<float> expected = sum;
  for (std::size_t i = 0; i < x.size(); ++i) {
    narrow[i] = math::float_to_bf16(x[i]);
    expected[i] = std::fma(math::bf16_to_float(narrow[i]), 0.25F, expected[i]);
  }
  ASSERT_EQ(nibble_accumulate(sum.data(), narrow.data(), "BF16", 1003, 0.25), NIBBLE_OK);
  EXPECT_EQ(sum, expected);
}

TEST(Formats, AreChosenByRequestPatternSizeAndName) {
  nibble_optimizer_desc desc = desc_of("int8");
  desc.min_quantized_elements = 0;  // the default: 4096
  api::Optimizer optimizer(desc);
  optimizer.set_format("layers.*.mlp.*", "int4");
  optimizer.set_format("layers.1.*", "exp_avg=int8,exp_avg_sq=int8_log");
  std::vector<float> w(1 << 16);
  const auto add = [&](const char* name, std::vector<std::int64_t> shape,
                       const char* format = nullptr) {
    return optimizer.add(name, shape, w.data(), format);
  };
  EXPECT_EQ(format_of(optimizer, add("layers.0.attn.q", {64, 64})), "int8");
  EXPECT_EQ(format_of(optimizer, add("layers.0.mlp.up", {64, 64})), "int4");
  EXPECT_EQ(format_of(optimizer, add("layers.1.mlp.up", {64, 64})),
            "exp_avg=int8,exp_avg_sq=int8_log");
  EXPECT_EQ(format_of(optimizer, add("layers.0.bias", {64})), "fp32");
  EXPECT_EQ(format_of(optimizer, add("model.embed_tokens", {128, 64})), "fp32");
  EXPECT_EQ(format_of(optimizer, add("final_NORM", {8192})), "fp32");
  EXPECT_EQ(format_of(optimizer, add("tiny", {10}, "int8")), "int8");
  EXPECT_EQ(format_of(optimizer, add("vector", {8192}, "int4_rank1")), "int4");
  EXPECT_EQ(format_of(optimizer, add("matrix", {64, 128}, "int4_rank1")), "int4_rank1");
  const char* reasons[] = {"the optimizer's format",
                           "pattern \"layers.*.mlp.*\"",
                           "pattern \"layers.1.*\"",
                           "fewer than 4096",
                           "embed",
                           "norm",
                           "asked for",
                           "not a matrix",
                           "asked for"};
  for (std::int64_t i = 0; i < 9; ++i) {
    EXPECT_NE(std::string(optimizer.info(i).reason).find(reasons[i]), std::string::npos)
        << optimizer.info(i).reason;
  }
  EXPECT_EQ(optimizer.info(0).state_bytes, 2U * 4096 + 2 * 16 * 4);
  EXPECT_EQ(optimizer.info(1).state_bytes, 2U * 2048 + 2 * 32 * 4);
  EXPECT_EQ(optimizer.info(8).state_bytes, 2U * 4096 + 64 * 4 + 64 * 4 + 128 * 4);
}

// Adafactor keeps second moments in a way of its own: the report says so, and why.
TEST(Formats, OfAdafactorsSecondMoments) {
  nibble_optimizer_desc desc = desc_of("int8");
  desc.rule = "adafactor";
  api::Optimizer optimizer(desc);
  const std::int64_t with_momentum = optimizer.add_group({{"beta1", 0.9}});
  std::vector<float> w(8192);
  optimizer.add("matrix", {64, 128}, w.data());
  optimizer.add("vector", {8192}, w.data());
  optimizer.add("matrix, momentum", {64, 128}, w.data(), nullptr, with_momentum);
  optimizer.add("vector, momentum", {8192}, w.data(), nullptr, with_momentum);
  optimizer.add("vector, fp32", {8192}, w.data(), "fp32");
  EXPECT_EQ(format_of(optimizer, 0), "exp_avg_sq=factored");
  EXPECT_EQ(format_of(optimizer, 1), "fp32");
  EXPECT_EQ(format_of(optimizer, 2), "exp_avg=int8,exp_avg_sq=factored");
  EXPECT_EQ(format_of(optimizer, 3), "exp_avg=int8,exp_avg_sq=fp32");
  for (const auto& [param, why] : {std::pair{0, "; the second moment is factored into fp32"},
                                   {1, "whole and fp32"},
                                   {2, "; the second moment is factored into fp32"},
                                   {3, "whole and fp32"}}) {
    EXPECT_NE(std::string(optimizer.info(param).reason).find(why), std::string::npos) << param;
  }
  EXPECT_STREQ(optimizer.info(4).reason, "asked for this parameter");
}

// The report against what an independent comparison with fp32 states finds after one step.
TEST(Reports, QuantisationErrorOfTheLastStep) {
  const std::size_t n = 8192;
  for (const char* format : {"fp32", "int8", "int4", "fp8"}) {
    OneTensor run(desc_of(format), make_input("normal", n, 50));
    auto error = api::make<nibble_state_error>();
    EXPECT_EQ(nibble_optimizer_state_error(run.optimizer.get(), 0, 0, &error), NIBBLE_WRONG_ORDER);
    const auto grad = make_input("normal", n);
    const void* grads[] = {grad.data()};
    auto step = api::make<nibble_step_desc>();
    step.grads = grads, step.n_grads = 1, step.collect_errors = 1;
    ASSERT_TRUE(run.optimizer.step(step));
    for (std::int64_t s = 0; s < 2; ++s) {
      ASSERT_EQ(nibble_optimizer_state_error(run.optimizer.get(), 0, s, &error), NIBBLE_OK);
      std::vector<float> stored(n);
      ASSERT_EQ(nibble_optimizer_export_state(run.optimizer.get(), 0, error.state, stored.data()),
                NIBBLE_OK);
      double squares = 0, errors = 0, largest = 0;
      std::int64_t lost = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double g = grad[i];
        const double exact = s == 0 ? 0.1 * g : 0.001 * g * g;
        squares += exact * exact;
        errors += (stored[i] - exact) * (stored[i] - exact);
        largest = std::max(largest, std::abs(stored[i] - exact));
        lost += exact != 0 && stored[i] == 0 ? 1 : 0;
      }
      EXPECT_NEAR(error.relative_rms, std::sqrt(errors / squares), 1e-3 * error.relative_rms + 1e-6)
          << format;
      EXPECT_NEAR(error.largest, largest, 1e-4 * largest + 1e-8) << format;
      EXPECT_EQ(error.lost, lost) << format;
      EXPECT_STREQ(error.format, format);
    }
    EXPECT_EQ(nibble_optimizer_state_error(run.optimizer.get(), 0, 2, &error),
              NIBBLE_INVALID_ARGUMENT);
  }
}

// The scratch of rank-1 states is told, and is what maxima of rows and columns need.
TEST(Reports, WorkspaceOfRank1States) {
  struct Case {
    const char* rule;
    const char* format;
    std::int64_t rows, columns;
    double rank1_states;
  };
  for (const Case& c : {Case{"adamw", "int4_rank1", 512, 512, 1},
                        {"adamw", "int4_rank1", 4096, 512, 1},
                        {"adamw", "int4_rank1", 512, 4096, 1},
                        {"adamw", "int4_rank1", 300, 777, 1},
                        {"amsgrad", "int4_rank1", 2048, 256, 2},
                        {"adamw", "exp_avg=int4_rank1", 512, 512, 0},
                        {"adamw", "int4", 512, 512, 0}}) {
    nibble_optimizer_desc desc = desc_of(c.format);
    desc.rule = c.rule;
    api::Optimizer optimizer(desc);
    std::vector<float> weights(static_cast<std::size_t>(c.rows * c.columns));
    optimizer.add("w", {c.rows, c.columns}, weights.data());
    std::uint64_t bytes = 0;
    api::check(nibble_optimizer_workspace_bytes(optimizer.get(), &bytes));
    const double scales = c.rank1_states * 4.0 * static_cast<double>(c.rows + c.columns);
    const auto told = static_cast<double>(bytes);
    EXPECT_GE(told, scales) << c.rule << " " << c.rows;
    const double states = static_cast<double>(optimizer.info(0).state_bytes);
    EXPECT_LE(told, 2 * scales + 0.035 * states) << c.rule << " " << c.rows << " " << c.columns;
  }
}

// One pass over thousands of small tensors gives what each gives by itself.
TEST(Steps, ManySmallTensors) {
  constexpr std::size_t kTensors = 500, kCount = 37;
  api::Optimizer together(desc_of("int8"));
  std::vector<std::vector<float>> weights, grads;
  std::vector<const void*> pointers;
  for (std::size_t i = 0; i < kTensors; ++i) {
    weights.push_back(make_input("normal", kCount, i));
    grads.push_back(make_input("normal", kCount, i + 1000));
    pointers.push_back(grads.back().data());
  }
  const auto start = weights;
  for (std::size_t i = 0; i < kTensors; ++i) {
    together.add("t" + std::to_string(i), {kCount}, weights[i].data(), "int8");
  }
  together.step(pointers);
  together.step(pointers);
  for (std::size_t i = 0; i < kTensors; i += 7) {
    OneTensor alone(desc_of("int8"), start[i]);
    alone.step(grads[i].data());
    alone.step(grads[i].data());
    EXPECT_EQ(alone.weights, weights[i]) << i;
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// More than 2^31 elements: 32-bit arithmetic anywhere would wrap. Gradients are pages that nobody
// has touched, but for a few; what happens there is what happens in a small tensor.
TEST(Steps, MoreThanTwoToThe31Elements) {
  constexpr std::int64_t kCount = (std::int64_t{1} << 31) + 5000;
  const auto bytes = static_cast<std::size_t>(kCount) * 2;
  void* weights = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void* grads = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(weights, MAP_FAILED);
  ASSERT_NE(grads, MAP_FAILED);
  auto desc = api::make<nibble_optimizer_desc>();
  desc.rule = "lion", desc.state_format = "int4", desc.weight_format = "bf16_nearest";
  desc.learning_rate = 0.5;
  auto* g = static_cast<math::bf16*>(grads);
  const std::int64_t touched[] = {0, (std::int64_t{1} << 31) - 1, (std::int64_t{1} << 31) + 4999};
  for (const std::int64_t i : touched) {
    g[i] = math::float_to_bf16(i == 0 ? -1.0F : 1.0F);
  }
  try {
    api::Optimizer optimizer(desc);
    optimizer.add("huge", {kCount}, weights);
    ASSERT_TRUE(optimizer.step({grads}));
    EXPECT_EQ(optimizer.info(0).count, kCount);
  } catch (const api::Error& error) {
    ASSERT_EQ(error.status(), NIBBLE_OUT_OF_MEMORY);
    GTEST_SKIP() << "this machine has not the 6 GB";
  }
  const auto* w = static_cast<const math::bf16*>(weights);
  EXPECT_EQ(math::bf16_to_float(w[0]), 0.5F);
  EXPECT_EQ(math::bf16_to_float(w[touched[1]]), -0.5F);
  EXPECT_EQ(math::bf16_to_float(w[touched[2]]), -0.5F);
  EXPECT_EQ(math::bf16_to_float(w[touched[2] - 1]), 0.0F);
  EXPECT_EQ(math::bf16_to_float(w[4999]), 0.0F);  // where 32 bits would have wrapped to
  ::munmap(weights, bytes);
  ::munmap(grads, bytes);
}
#endif

}  // namespace
}  // namespace nibble::test
