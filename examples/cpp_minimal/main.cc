// SPDX-License-Identifier: Apache-2.0
// The smallest use of libnibble from C++: logistic regression with bf16 weights and nothing beside
// them (stochastic rounding), and int8 optimizer states: 4 bytes a weight in all, instead of 12.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nibble/nibble.hpp>
#include <random>
#include <vector>

namespace {

constexpr int kFeatures = 4096;
constexpr int kBatch = 64;
constexpr int kActive = 64;  // features of a sample that are not zero
constexpr int kSteps = 1500;

float from_bf16(std::uint16_t x) {
  const std::uint32_t bits = std::uint32_t{x} << 16;
  float out = 0;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}

struct Sample {
  int feature[kActive];
  float value[kActive];
  float label;
};

// Labels are the sign of a hidden weight vector's product with the sample.
class Data {
 public:
  explicit Data(unsigned seed) : random_(seed), hidden_(kFeatures) {
    std::mt19937 same_for_all(7);
    for (float& w : hidden_) {
      w = normal_(same_for_all);
    }
  }
  Sample next() {
    Sample out{};
    float sum = 0;
    for (int i = 0; i < kActive; ++i) {
      out.feature[i] = static_cast<int>(random_() % kFeatures);
      out.value[i] = normal_(random_);
      sum += out.value[i] * hidden_[static_cast<std::size_t>(out.feature[i])];
    }
    out.label = sum > 0 ? 1.0F : 0.0F;
    return out;
  }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  std::vector<float> hidden_;
};

float score(const std::vector<std::uint16_t>& weights, const Sample& x) {
  float sum = 0;
  for (int i = 0; i < kActive; ++i) {
    sum += x.value[i] * from_bf16(weights[static_cast<std::size_t>(x.feature[i])]);
  }
  return sum;
}

double accuracy(const std::vector<std::uint16_t>& weights) {
  Data held_out(2);
  int right = 0;
  constexpr int kSamples = 4000;
  for (int i = 0; i < kSamples; ++i) {
    const Sample x = held_out.next();
    right += (score(weights, x) > 0) == (x.label > 0.5F) ? 1 : 0;
  }
  return static_cast<double>(right) / kSamples;
}

}  // namespace

int main() try {
  auto desc = nibble::api::make<nibble_optimizer_desc>();
  desc.rule = "adamw";
  desc.state_format = "int8";
  desc.weight_format = "bf16_stochastic";
  desc.seed = 1;
  nibble::api::Optimizer optimizer(desc);

  std::vector<std::uint16_t> weights(kFeatures);
  auto param = nibble::api::make<nibble_param_desc>();
  const std::int64_t shape[] = {kFeatures};
  param.name = "weights";
  param.n_dims = 1;
  param.shape = shape;
  param.grad_dtype = "F32";
  const std::int64_t index = optimizer.add_param(param);
  optimizer.bind(index, weights.data());

  Data data(1);
  std::vector<float> grad(kFeatures);
  const double before = accuracy(weights);
  for (int step = 0; step < kSteps; ++step) {
    std::fill(grad.begin(), grad.end(), 0.0F);
    for (int b = 0; b < kBatch; ++b) {
      const Sample x = data.next();
      const float error = 1.0F / (1.0F + std::exp(-score(weights, x))) - x.label;
      for (int i = 0; i < kActive; ++i) {
        grad[static_cast<std::size_t>(x.feature[i])] += error * x.value[i] / kBatch;
      }
    }
    optimizer.set_learning_rate(0.02 * (1.0 - static_cast<double>(step) / kSteps));
    optimizer.step({grad.data()});
  }
  const double after = accuracy(weights);
  const nibble_param_info info = optimizer.info(index);
  std::printf("%s states (%s), %s weights: %.1f bytes a weight; held-out accuracy %.3f, was %.3f\n",
              info.state_format, info.reason, info.weight_format,
              static_cast<double>(info.state_bytes) / kFeatures + 2, after, before);
  return after > 0.9 ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const nibble::api::Error& error) {
  std::fprintf(stderr, "%s: %s\n", nibble_status_name(error.status()), error.what());
  return EXIT_FAILURE;
}
