// SPDX-License-Identifier: Apache-2.0
// LoRA on the real model against PyTorch and PEFT: gradients of the first steps, ten steps of
// AdamW, the adapter at the end. AdamW here is an oracle of the test's own, from torch's formulas.
#include <gtest/gtest.h>

#include "model/golden_support.h"

namespace nibble::test {
namespace {

class AdamW {
 public:
  explicit AdamW(const Json& lora)
      : rate_(lora.at("lr")),
        beta1_(lora.at("betas").at(0)),
        beta2_(lora.at("betas").at(1)),
        epsilon_(lora.at("eps")),
        decay_(lora.at("weight_decay")) {}

  void step(model::LoraAdapter& adapter) {
    ++steps_;
    std::size_t slot = 0;
    for (model::LoraPair& pair : adapter.pairs()) {
      const std::int64_t r = adapter.config().rank;
      update(slot++, pair.a, pair.a_grad, r * pair.inputs);
      update(slot++, pair.b_transposed, pair.b_transposed_grad, r * pair.outputs);
    }
    adapter.refresh();
  }

 private:
  void update(std::size_t slot, float* p, const float* grad, std::int64_t n) {
    first_.resize(std::max(first_.size(), slot + 1));
    second_.resize(first_.size());
    first_[slot].resize(static_cast<std::size_t>(n));
    second_[slot].resize(static_cast<std::size_t>(n));
    const double correct1 = 1 - std::pow(beta1_, steps_), correct2 = 1 - std::pow(beta2_, steps_);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto g = static_cast<double>(grad[i]);
      double& m = first_[slot][static_cast<std::size_t>(i)];
      double& v = second_[slot][static_cast<std::size_t>(i)];
      m = beta1_ * m + (1 - beta1_) * g;
      v = beta2_ * v + (1 - beta2_) * g * g;
      const double decayed = static_cast<double>(p[i]) * (1 - rate_ * decay_);
      p[i] = static_cast<float>(decayed -
                                rate_ * (m / correct1) / (std::sqrt(v / correct2) + epsilon_));
    }
  }

  double rate_, beta1_, beta2_, epsilon_, decay_;
  int steps_ = 0;
  std::vector<std::vector<double>> first_, second_;
};

// Parts of a name such as lora_b0.final.L15.q_proj.B.
struct Place {
  std::int64_t layer;
  std::string target;
  bool is_a;
};

class GoldenLora : public GoldenTest {
 protected:
  // The runs whose base is the model itself. Those on NF4 weights need another base: counted.
  std::vector<std::string> variants(const GoldenModel& golden) {
    std::vector<std::string> out;
    int skipped = 0;
    for (const auto& [key, value] : golden.json.items()) {
      if (!key.ends_with("_loss") || !value.is_array()) {
        continue;
      }
      if (key.find("nf4") != std::string::npos) {
        ++skipped;
      } else {
        out.push_back(key.substr(0, key.size() - 5));
      }
    }
    std::printf("  %s: %zu runs covered, %d on NF4 weights not covered\n", golden.name.c_str(),
                out.size(), skipped);
    EXPECT_FALSE(out.empty());
    return out;
  }

  // Calls f(pair, what, tensor, place) for every stored tensor "<variant>.<kind>.L..".
  template <class F>
  void for_stored(GoldenRun& run, const std::string& kind, const F& f) {
    const std::string prefix = run.name + "." + kind + ".L";
    int found = 0;
    for (const formats::SafeTensor& tensor : run.golden.tensors->tensors()) {
      if (!tensor.name.starts_with(prefix)) {
        continue;
      }
      const std::string rest = tensor.name.substr(prefix.size());
      const std::size_t first = rest.find('.'), last = rest.rfind('.');
      const Place place{std::stoll(rest.substr(0, first)), rest.substr(first + 1, last - first - 1),
                        rest.substr(last + 1) == "A"};
      for (model::LoraPair& pair : run.adapter->pairs()) {
        if (pair.layer == place.layer && place.target == model::linear_info(pair.which).hf) {
          f(pair, tensor.name, place.is_a);
          ++found;
        }
      }
    }
    EXPECT_GT(found, 0) << prefix;
  }

  // Norms of all gradients, [layer][target][A, B].
  void check_norms(const GoldenRun& run, const std::string& tensor, double tolerance) {
    const auto want = run.golden.values<double>(tensor);
    double largest = 0, worst = 0;
    for (const double norm : want) {
      largest = std::max(largest, norm);
    }
    for (const model::LoraPair& pair : run.adapter->pairs()) {
      const std::size_t at =
          2 * (static_cast<std::size_t>(pair.layer) * run.targets.size() + run.target(pair));
      const double norms[] = {norm2(run.a_of(pair, pair.a_grad)),
                              norm2(run.b_of(pair, pair.b_transposed_grad))};
      for (const int side : {0, 1}) {
        const double expected = want.at(at + static_cast<std::size_t>(side));
        // A's gradient is exactly zero while B is.
        EXPECT_NEAR(norms[side], expected, tolerance * expected + 1e-12 * largest)
            << tensor << " " << pair.gguf_name() << " "
            << "AB"[side];
        worst = expected > 0 ? std::max(worst, std::fabs(norms[side] / expected - 1)) : worst;
      }
    }
    std::printf("  %s: within %.2e\n", tensor.c_str(), worst);
  }

  // Ten steps; every loss within `tolerance`.
  void check_curve(GoldenRun& run, model::Llama& llama, double tolerance, bool exact) {
    const auto want = run.golden.json.at(run.name + "_loss").get<std::vector<double>>();
    AdamW optimizer(run.golden.json.at("lora"));
    double worst = 0;
    for (std::size_t step = 0; step < want.size(); ++step) {
      run.adapter->zero_grad();
      const double loss = llama.loss_and_grad(run.batch(), *run.adapter, {run.scale(), 0, 0}) /
                          static_cast<double>(run.count);
      EXPECT_NEAR(loss, want[step], tolerance) << run.name << " step " << step;
      worst = std::max(worst, std::fabs(loss - want[step]));
      const std::string norms = run.name + ".gradnorm.step" + std::to_string(step);
      if (exact && run.golden.tensors->find(norms) != nullptr) {
        check_norms(run, norms, 1e-3);
      }
      if (exact && step == 0) {
        check_gradients(run);
      }
      if (step + 1 < want.size()) {
        optimizer.step(*run.adapter);
      }
    }
    std::printf("  %s: losses within %.2e\n", run.name.c_str(), worst);
  }

  void check_gradients(GoldenRun& run) {
    double worst = 0;
    for_stored(run, "grad0", [&](const model::LoraPair& pair, const std::string& name, bool is_a) {
      const auto want = run.golden.values<float>(name);
      const std::vector<float> got =
          is_a ? run.a_of(pair, pair.a_grad) : run.b_of(pair, pair.b_transposed_grad);
      ASSERT_EQ(got.size(), want.size()) << name;
      std::vector<float> error;
      for (std::size_t i = 0; i < want.size(); ++i) {
        error.push_back(got[i] - want[i]);
      }
      worst = std::max(worst, norm2(error) / norm2(want));
      EXPECT_LT(norm2(error), 1e-3 * norm2(want)) << name;
    });
    std::printf("  %s: first gradients within %.2e of their norm\n", run.name.c_str(), worst);
  }

  void check_final(GoldenRun& run) {
    std::size_t near = 0, all = 0;
    for_stored(run, "final", [&](const model::LoraPair& pair, const std::string& name, bool is_a) {
      const auto want = run.golden.values<float>(name);
      const std::vector<float> got =
          is_a ? run.a_of(pair, pair.a) : run.b_of(pair, pair.b_transposed);
      ASSERT_EQ(got.size(), want.size()) << name;
      for (std::size_t i = 0; i < want.size(); ++i) {
        near += std::fabs(got[i] - want[i]) <= 1e-3F ? 1 : 0;
        ++all;
      }
    });
    EXPECT_GE(static_cast<double>(near), 0.99 * static_cast<double>(all)) << run.name;
    std::printf("  %s: %zu of %zu final values within 1e-3\n", run.name.c_str(), near, all);
  }
};

TEST_F(GoldenLora, TenStepsInFp32) {
  model::Llama llama(*file_, backend::DType::kF32, false);
  for (const GoldenModel& golden : goldens_) {
    for (const std::string& variant : variants(golden)) {
      GoldenRun run(golden, variant, llama.config());
      check_curve(run, llama, 1e-3, true);
      check_final(run);
    }
  }
}

TEST_F(GoldenLora, TenStepsInBf16) {
  if (!backend::cpu_has_bf16()) {
    GTEST_SKIP() << "this processor has no bf16 products";
  }
  model::Llama llama(*file_, backend::DType::kBf16, true);
  for (const GoldenModel& golden : goldens_) {
    for (const std::string& variant : variants(golden)) {
      GoldenRun run(golden, variant, llama.config());
      check_curve(run, llama, 2e-2, false);
    }
  }
}

TEST_F(GoldenLora, FirstGradientsInBf16) {
  if (!backend::cpu_has_bf16()) {
    GTEST_SKIP() << "this processor has no bf16 products";
  }
  model::Llama llama(*file_, backend::DType::kBf16, false);
  for (const GoldenModel& golden : goldens_) {
    for (const std::string& variant : variants(golden)) {
      GoldenRun run(golden, variant, llama.config());
      run.adapter->zero_grad();
      llama.loss_and_grad(run.batch(), *run.adapter, {run.scale(), 0, 0});
      double error = 0, size = 0, worst = 0;
      for_stored(run, "grad0",
                 [&](const model::LoraPair& pair, const std::string& name, bool is_a) {
                   const auto want = golden.values<float>(name);
                   const std::vector<float> got =
                       is_a ? run.a_of(pair, pair.a_grad) : run.b_of(pair, pair.b_transposed_grad);
                   std::vector<float> apart;
                   for (std::size_t i = 0; i < want.size(); ++i) {
                     apart.push_back(got[i] - want[i]);
                   }
                   error += norm2(apart) * norm2(apart);
                   size += norm2(want) * norm2(want);
                   worst = std::max(worst, norm2(apart) / norm2(want));
                 });
      std::printf("  %s: bf16 gradients %.2e of the norm away (worst matrix %.2e)\n",
                  variant.c_str(), std::sqrt(error / size), worst);
      EXPECT_LT(std::sqrt(error / size), 3e-2) << variant;
    }
  }
}

}  // namespace
}  // namespace nibble::test
