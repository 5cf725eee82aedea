// SPDX-License-Identifier: Apache-2.0
// Loss and gradients of every adapted linear layer against an independent decoder in double
// precision: the loss itself, and the gradients against its central finite differences.
#include <gtest/gtest.h>

#include "model/tiny_run.h"

namespace nibble::test {
namespace {

struct Case {
  const char* name;
  TinyShape shape;
  std::int64_t rank;
  std::vector<std::int64_t> lengths;
  float scale, dropout;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// Step of the finite differences. Truncation is of order step^2 of the value, rounding 1e-16 *
// loss / step = 1e-16 * 1e3 / 1e-5 = 1e-8: both far under fp32's error.
constexpr double kStep = 1e-5;

class Gradient : public testing::TestWithParam<Case> {
 protected:
  Gradient()
      : c_(GetParam()),
        run_(c_.shape, c_.rank, c_.dropout),
        batch_(random_batch(c_.lengths, c_.shape.vocabulary, 0.3)),
        train_{c_.scale, 99, 4} {
    reference_ = reference_of(*run_.adapter);
    if (c_.dropout > 0) {
      reference_.keep = static_cast<double>(1.0F - c_.dropout);
      reference_.seed = train_.seed;
      reference_.micro_step = train_.micro_step;
    }
  }

  double reference_loss() const {
    return Reference(run_.tiny, &reference_).loss(batch_.ids, batch_.targets, batch_.starts);
  }

  // Derivative of scale * loss along `direction` in `values`.
  double derivative(std::vector<double>& values, const std::vector<double>& direction) const {
    const std::vector<double> middle = values;
    double sides[2];
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = middle[i] + (side == 0 ? kStep : -kStep) * direction[i];
      }
      sides[side] = reference_loss();
    }
    values = middle;
    return static_cast<double>(c_.scale) * (sides[0] - sides[1]) / (2 * kStep);
  }

  // One matrix: its derivative along a random direction with every element +-1, which a wrong
  // element anywhere moves, and along its two ends and its largest element alone.
  void check_matrix(const std::string& what, std::vector<double>& values,
                    const std::vector<double>& gradient) {
    double norm = 0, along = 0;
    std::size_t largest = 0;
    std::vector<double> direction(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      direction[i] = (golden_bits(11, values.size(), i) >> 40) % 2 == 0 ? 1 : -1;
      along += gradient[i] * direction[i];
      norm += gradient[i] * gradient[i];
      largest = std::fabs(gradient[i]) > std::fabs(gradient[largest]) ? i : largest;
    }
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-4) << what << ": the test would see nothing";
    compare(what + " along a random direction", along, derivative(values, direction), norm);
    for (const std::size_t at : {values.size() / 2, largest}) {
      std::fill(direction.begin(), direction.end(), 0.0);
      direction[at] = 1;
      compare(what + " element " + std::to_string(at), gradient[at], derivative(values, direction),
              norm);
    }
  }

  // fp32 sums of a few hundred terms through two layers: measured up to 6e-6 of the norm on the
  // cases here; 1e-4 leaves room for other instruction sets, and any wrong factor is thousands of
  // times more.
  void compare(const std::string& what, double got, double want, double norm) {
    worst_ = std::max(worst_, std::fabs(got - want) / norm);
    EXPECT_NEAR(got, want, 1e-4 * norm) << what;
  }

  Case c_;
  TinyRun run_;
  Batch batch_;
  model::TrainPass train_;
  ReferenceAdapter reference_;
  double worst_ = 0;
};

TEST_P(Gradient, EqualsFiniteDifferencesInDouble) {
  run_.adapter->zero_grad();
  const double loss = run_.llama->loss_and_grad(batch_.view(), *run_.adapter, train_);
  const double want = reference_loss();
  // Not scaled: scale is the gradients' only.
  EXPECT_NEAR(loss, want, 3e-6 * want);
  for (const model::LoraPair& pair : run_.adapter->pairs()) {
    const std::string name =
        "blk." + std::to_string(pair.layer) + "." + kLinearNames[static_cast<int>(pair.which)];
    ReferencePair& to = reference_.pairs.at(name);
    const std::vector<double> da(pair.a_grad, pair.a_grad + c_.rank * pair.inputs);
    std::vector<double> db;
    for (std::int64_t o = 0; o < pair.outputs; ++o) {
      for (std::int64_t r = 0; r < c_.rank; ++r) {
        db.push_back(static_cast<double>(pair.b_transposed_grad[r * pair.outputs + o]));
      }
    }
    check_matrix(name + " A", to.a, da);
    check_matrix(name + " B", to.b, db);
  }
  std::printf("  %s: loss %.2e, gradients %.2e of the norm\n", c_.name, std::fabs(loss / want - 1),
              worst_);
}

TinyShape shape(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                GgmlType type = GgmlType::kF32) {
  TinyShape s;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = head_dim;
  s.type = type;
  return s;
}

TinyShape mixed() {
  TinyShape s = shape(4, 2, 8);
  s.tied = false;
  s.vocabulary = 70;
  s.types = {{"attn_q", GgmlType::kQ8_0},   {"attn_k", GgmlType::kQ4_0},
             {"attn_v", GgmlType::kF16},    {"attn_output", GgmlType::kBF16},
             {"ffn_gate", GgmlType::kQ4_1}, {"ffn_up", GgmlType::kQ4_0},
             {"ffn_down", GgmlType::kQ8_0}, {"token_embd", GgmlType::kQ8_0},
             {"output", GgmlType::kQ4_1}};
  return s;
}

TinyShape wide_heads() {
  TinyShape s = shape(3, 1, 64, GgmlType::kQ4_1);  // query width 192 of a width of 64
  s.width = 64;
  s.feed_forward = 96;
  s.vocabulary = 200;  // more than a tile of 192, not a multiple
  return s;
}

TinyShape odd_sizes() {  // nothing is a multiple of a vector or tile
  TinyShape s = shape(3, 3, 6);
  s.width = 35;
  s.feed_forward = 101;
  s.layers = 1;
  s.vocabulary = 67;
  return s;
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Gradient,
    testing::Values(Case{"group1", shape(4, 4, 8), 3, {1, 63, 64, 65}, 0.7F, 0},
                    Case{"group2_mixed_types_untied", mixed(), 8, {130, 5}, 2.5F, 0},
                    Case{"group3_head64", wide_heads(), 1, {65, 1, 64}, 1.0F / 1024, 0},
                    Case{"rank64", shape(2, 1, 16, GgmlType::kQ4_0), 64, {33}, 1, 0},
                    Case{"odd_sizes", odd_sizes(), 5, {7, 66}, 0.3F, 0},
                    // More than 256 targets: the head's chunks.
                    Case{"chunks", shape(2, 2, 8), 2, {150, 130, 120}, 0.01F, 0},
                    Case{"dropout", shape(4, 2, 8, GgmlType::kQ8_0), 4, {65, 30}, 0.5F, 0.25F}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nibble::test
