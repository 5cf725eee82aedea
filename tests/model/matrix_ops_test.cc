// SPDX-License-Identifier: Apache-2.0
// The CPU's products and attention against plain double loops, at odd sizes.
#include <array>

#include "model/ops_support.h"
#include "support/tiny_model.h"

namespace nibble::test {
namespace {

using backend::QuantizedMatrix;

class Products : public testing::TestWithParam<DType> {
 protected:
  Products() {
    if (GetParam() == DType::kF32 || backend::cpu_has_bf16()) {
      ops_ = backend::make_cpu_model_ops(GetParam());
    }
  }
  void SetUp() override {
    if (!ops_) {
      GTEST_SKIP() << "this processor has no bf16 products";
    }
  }
  DType act() const { return GetParam(); }

  // A sum of terms whose absolute values add up to `absolute`: fp32 accumulates; with bf16 the
  // weights are rounded (2^-8 each, the other inputs are exact here) and so may be the result.
  void expect_sum(double got, double want, double absolute, DType result) const {
    const double weights = act() == DType::kF32 ? 0 : absolute / 256;
    const double rounding = result == DType::kF32 ? 0 : (std::fabs(want) + weights) / 256;
    EXPECT_NEAR(got, want, 1e-6 * absolute + weights + rounding + 1e-6);
  }

  std::unique_ptr<backend::ModelOps> ops_;
};

struct Weight {
  Weight(GgmlType type, std::int64_t rows, std::int64_t cols) : rows(rows), cols(cols) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      values.push_back(static_cast<double>(golden_uniform(31, 1, static_cast<std::uint64_t>(i))));
    }
    data = encode(type, values);
    matrix = {type, data.bytes.data(), rows, cols};
  }
  double operator()(std::int64_t i, std::int64_t j) const {
    return data.values[static_cast<std::size_t>(i * cols + j)];
  }
  std::int64_t rows, cols;
  Encoded data;
  QuantizedMatrix matrix;
};

struct Size {
  std::int64_t tokens, outputs, inputs, rank;
  GgmlType type;
};

// Below, at and above every tile side (256 tokens, 192 outputs, 96 inputs, 2048 reduced).
constexpr Size kSizes[] = {
    {1, 1, 32, 1, GgmlType::kQ4_1},      {33, 191, 96, 3, GgmlType::kQ4_0},
    {257, 193, 160, 8, GgmlType::kQ8_0}, {7, 2081, 64, 1, GgmlType::kQ4_1},
    {300, 5, 7, 64, GgmlType::kF32},     {12, 385, 101, 2, GgmlType::kF16},
    {31, 50, 97, 5, GgmlType::kBF16},
};

TEST_P(Products, LinearWithLowRankTerm) {
  for (const Size& s : kSizes) {
    const Weight w(s.type, s.outputs, s.inputs);
    const TestMatrix x(s.tokens, s.inputs, 1, act()), left(s.tokens, s.rank, 2, act()),
        right(s.rank, s.outputs, 3, act());
    for (const bool accumulate : {false, true}) {
      for (const bool low_rank : {false, true}) {
        const DType result = accumulate ? DType::kF32 : act();
        TestMatrix y(s.tokens, s.outputs, 4, result);
        const TestMatrix before = y;
        const LowRank term = low_rank ? LowRank{left.view(), right.view()} : LowRank{};
        ops_->linear(x.view(), w.matrix, term, y.view(), accumulate);
        for (std::int64_t t = 0; t < s.tokens; t += 1 + s.tokens / 9) {
          for (std::int64_t o = 0; o < s.outputs; o += 1 + s.outputs / 40) {
            double want = accumulate ? before(t, o) : 0, absolute = std::fabs(want);
            for (std::int64_t k = 0; k < s.inputs; ++k) {
              want += x(t, k) * w(o, k);
              absolute += std::fabs(x(t, k) * w(o, k));
            }
            for (std::int64_t r = 0; r < s.rank && low_rank; ++r) {
              want += left(t, r) * right(r, o);
              absolute += std::fabs(left(t, r) * right(r, o));
            }
            expect_sum(y(t, o), want, absolute, result);
          }
        }
      }
    }
  }
}

TEST_P(Products, InputGradientWithLowRankTerm) {
  for (const Size& s : kSizes) {
    const Weight w(s.type, s.outputs, s.inputs);
    const TestMatrix dy(s.tokens, s.outputs, 1, act()), left(s.tokens, s.rank, 2, act()),
        right(s.rank, s.inputs, 3, act());
    for (const bool accumulate : {false, true}) {
      for (const bool low_rank : {false, true}) {
        TestMatrix dx(s.tokens, s.inputs, 4);
        const TestMatrix before = dx;
        const LowRank term = low_rank ? LowRank{left.view(), right.view()} : LowRank{};
        ops_->linear_grad_input(dy.view(), w.matrix, term, dx.view(), accumulate);
        for (std::int64_t t = 0; t < s.tokens; t += 1 + s.tokens / 9) {
          for (std::int64_t k = 0; k < s.inputs; k += 1 + s.inputs / 40) {
            double want = accumulate ? before(t, k) : 0, absolute = std::fabs(want);
            for (std::int64_t o = 0; o < s.outputs; ++o) {
              want += dy(t, o) * w(o, k);
              absolute += std::fabs(dy(t, o) * w(o, k));
            }
            for (std::int64_t r = 0; r < s.rank && low_rank; ++r) {
              want += left(t, r) * right(r, k);
              absolute += std::fabs(left(t, r) * right(r, k));
            }
            expect_sum(dx(t, k), want, absolute, DType::kF32);
          }
        }
      }
    }
  }
}

TEST_P(Products, ProjectOuterAccumulateAndLowRankProduct) {
  for (const Size& s : kSizes) {
    constexpr float kScale = 1.75F;
    const TestMatrix x(s.tokens, s.inputs, 1, act()), a(s.rank, s.inputs, 2, act()),
        left(s.tokens, s.rank, 3, act());
    TestMatrix projected(s.tokens, s.rank, 0, act()), grad(s.rank, s.inputs, 4),
        product(s.tokens, s.inputs, 5);
    const TestMatrix before = grad;
    ops_->project(x.view(), a.view(), kScale, projected.view());
    ops_->outer_accumulate(left.view(), x.view(), grad.view());
    ops_->low_rank_product({left.view(), a.view()}, product.view());
    for (std::int64_t r = 0; r < s.rank; ++r) {
      for (std::int64_t t = 0; t < s.tokens; t += 1 + s.tokens / 9) {
        double want = 0, absolute = 0;
        for (std::int64_t k = 0; k < s.inputs; ++k) {
          want += kScale * x(t, k) * a(r, k);
          absolute += kScale * std::fabs(x(t, k) * a(r, k));
        }
        expect_sum(projected(t, r), want, absolute, act());
      }
      for (std::int64_t k = 0; k < s.inputs; ++k) {
        double want = before(r, k), absolute = std::fabs(want);
        for (std::int64_t t = 0; t < s.tokens; ++t) {
          want += left(t, r) * x(t, k);
          absolute += std::fabs(left(t, r) * x(t, k));
        }
        expect_sum(grad(r, k), want, absolute, DType::kF32);
      }
    }
    for (std::int64_t t = 0; t < s.tokens; t += 1 + s.tokens / 9) {
      for (std::int64_t k = 0; k < s.inputs; ++k) {
        double want = 0, absolute = 0;
        for (std::int64_t r = 0; r < s.rank; ++r) {
          want += left(t, r) * a(r, k);
          absolute += std::fabs(left(t, r) * a(r, k));
        }
        expect_sum(product(t, k), want, absolute, DType::kF32);
      }
    }
  }
}

TEST_P(Products, EmbeddingRows) {
  const Weight table(GgmlType::kQ8_0, 11, 64);
  const std::vector<std::int32_t> ids = {10, 0, 3, 3};
  TestMatrix out(4, 64, 9);
  ops_->embed(table.matrix, ids, out.view());
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t j = 0; j < 64; ++j) {
      EXPECT_EQ(out(t, j), table(ids[static_cast<std::size_t>(t)], j));
    }
  }
}

struct AttentionData {
  AttentionData(std::vector<std::int64_t> starts, std::int64_t heads, std::int64_t kv_heads,
                std::int64_t dim, DType act)
      : starts(std::move(starts)),
        heads(heads),
        kv_heads(kv_heads),
        dim(dim),
        q(rows(), heads * dim, 1, act),
        k(rows(), kv_heads * dim, 2, act),
        v(rows(), kv_heads * dim, 3, act),
        d_out(rows(), heads * dim, 4, act),
        out(rows(), heads * dim, 0, act),
        lse(heads, rows(), 0) {}

  std::int64_t rows() const { return starts.back(); }
  AttentionShape shape() const { return {starts, heads, kv_heads, dim}; }

  // Sum over rows of the sequences of d_out . attention, in double; writes the result if asked.
  double loss(const std::vector<double>& q_, const std::vector<double>& k_,
              const std::vector<double>& v_, std::vector<double>* result) const {
    double total = 0;
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
      for (std::int64_t t = starts[s]; t < starts[s + 1]; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
          total += row_loss(q_, k_, v_, starts[s], t, h, result);
        }
      }
    }
    return total;
  }

  double row_loss(const std::vector<double>& q_, const std::vector<double>& k_,
                  const std::vector<double>& v_, std::int64_t first, std::int64_t t, std::int64_t h,
                  std::vector<double>* result) const {
    const std::int64_t kv = h * kv_heads / heads;
    const auto at = [&](std::int64_t row, std::int64_t count, std::int64_t head, std::int64_t i) {
      return static_cast<std::size_t>((row * count + head) * dim + i);
    };
    std::vector<double> p;
    double sum = 0;
    for (std::int64_t u = first; u <= t; ++u) {
      double score = 0;
      for (std::int64_t i = 0; i < dim; ++i) {
        score += q_[at(t, heads, h, i)] * k_[at(u, kv_heads, kv, i)];
      }
      p.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
      sum += p.back();
    }
    double total = 0;
    for (std::int64_t i = 0; i < dim; ++i) {
      double value = 0;
      for (std::int64_t u = first; u <= t; ++u) {
        value += p[static_cast<std::size_t>(u - first)] / sum * v_[at(u, kv_heads, kv, i)];
      }
      total += value * d_out(t, h * dim + i);
      if (result != nullptr) {
        (*result)[at(t, heads, h, i)] = value;
      }
    }
    return total;
  }

  std::vector<std::int64_t> starts;
  std::int64_t heads, kv_heads, dim;
  TestMatrix q, k, v, d_out, out, lse;
};

TEST_P(Products, AttentionAndItsGradient) {
  // Lengths 1, 63, 64, 65, 130: inside, at and across the tile of 64.
  for (const auto& [heads, kv_heads, dim] :
       std::vector<std::array<std::int64_t, 3>>{{2, 2, 8}, {4, 2, 5}, {3, 1, 64}}) {
    AttentionData d({0, 1, 64, 128, 193, 323}, heads, kv_heads, dim, act());
    TestMatrix dq(d.rows(), heads * dim, 5, act()), dk(d.rows(), kv_heads * dim, 6, act()),
        dv(d.rows(), kv_heads * dim, 7, act());
    ops_->attention(d.q.view(), d.k.view(), d.v.view(), d.shape(), d.out.view(), d.lse.view());
    ops_->attention_grad(d.d_out.view(), d.q.view(), d.k.view(), d.v.view(), d.out.view(),
                         d.lse.view(), d.shape(), dq.view(), dk.view(), dv.view());
    std::vector<double> inputs[3] = {d.q.all(), d.k.all(), d.v.all()};
    std::vector<double> want(static_cast<std::size_t>(d.rows() * heads * dim));
    d.loss(inputs[0], inputs[1], inputs[2], &want);
    const double tolerance = act() == DType::kF32 ? 3e-5 : 0.03;
    EXPECT_LT(difference(d.out.all(), want), tolerance);
    const std::vector<double> got[3] = {dq.all(), dk.all(), dv.all()};
    for (int which = 0; which < 3; ++which) {
      const std::vector<double> middle = inputs[which];
      const std::size_t width = middle.size() / 323;  // rows
      for (const std::size_t row : {0UL, 1UL, 63UL, 64UL, 127UL, 128UL, 192UL, 193UL, 322UL}) {
        const auto at = static_cast<std::int64_t>(row * width + row % width);  // tiles' edges
        const auto loss = [&](const std::vector<double>& x) {
          return d.loss(which == 0 ? x : inputs[0], which == 1 ? x : inputs[1],
                        which == 2 ? x : inputs[2], nullptr);
        };
        EXPECT_NEAR(got[which][static_cast<std::size_t>(at)], slope(loss, middle, at),
                    3 * tolerance)
            << "qkv"[which] << " row " << row;
      }
    }
  }
}

TEST_P(Products, AttentionOfOneRowAgainstTheCache) {
  AttentionData d({0, 97}, 6, 2, 20, act());
  std::vector<double> want(static_cast<std::size_t>(97 * 6 * 20));
  d.loss(d.q.all(), d.k.all(), d.v.all(), &want);
  for (const std::int64_t row : {0, 1, 40, 96}) {
    ops_->attention_decode(d.q.view().row_range(row, 1), d.k.view().row_range(0, row + 1),
                           d.v.view().row_range(0, row + 1), d.shape(),
                           d.out.view().row_range(row, 1));
    const std::vector<double> expected(want.begin() + row * 120, want.begin() + (row + 1) * 120);
    EXPECT_LT(difference(d.out.row(row), expected), act() == DType::kF32 ? 1e-5 : 0.01);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Products, testing::Values(DType::kF32, DType::kBf16), dtype_name);

}  // namespace
}  // namespace nibble::test
