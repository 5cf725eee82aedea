// SPDX-License-Identifier: Apache-2.0
// Muon (math/rules/muon.h): the momentum, its orthogonalisation by a Newton-Schulz iteration, and
// the update.
#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/float_environment.h"
#include "backend/matrix_scratch.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "optim/matrix_rules.h"

namespace nibble::optim {
namespace {

using Rule = math::Muon;
using Scratch = backend::OrthogonalScratch;

constexpr std::int64_t kRowsInPiece = 64;
constexpr std::int64_t kElementsInPiece = 1 << 16;

template <class Body>
void for_each_piece(std::int64_t n, std::int64_t size, const Body& body) {
  parallel_for(math::block_count(n, size), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    body(i * size, std::min((i + 1) * size, n));
  });
}

// c = a b; a [rows, depth], b [depth, columns].
void multiply(const float* a, const float* b, float* c, std::int64_t rows, std::int64_t columns,
              std::int64_t depth) {
  const backend::Backend& backend = backend::active_backend();
  for_each_piece(rows, kRowsInPiece, [&](std::int64_t first, std::int64_t last) {
    backend.matmul(a + first * depth, b, c + first * columns, last - first, columns, depth);
  });
}

void transpose(const float* x, float* out, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kTile = 32;
  for_each_piece(rows, kTile, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c0 = 0; c0 < columns; c0 += kTile) {
      for (std::int64_t c = c0; c < std::min(c0 + kTile, columns); ++c) {
        for (std::int64_t r = first; r < last; ++r) {
          out[c * rows + r] = x[r * columns + c];
        }
      }
    }
  });
}

// out = a x + b y, element by element; out may be x or y.
void combine(float a, const float* x, float b, const float* y, float* out, std::int64_t n) {
  for_each_piece(n, kElementsInPiece, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      out[i] = a * x[i] + b * y[i];
    }
  });
}

// x [m, n], m <= n, to the nearest matrix with singular values about 1.
void orthogonalise(Scratch& s, std::int64_t m, std::int64_t n, float eps, int iterations) {
  const double norm = std::sqrt(sum_of_squares(s.x, m * n, s.sums));
  combine(static_cast<float>(1.0 / (norm + double{eps})), s.x, 0.0F, s.x, s.x, m * n);
  for (int i = 0; i < iterations; ++i) {
    transpose(s.x, s.other, m, n);
    multiply(s.x, s.other, s.gram, m, m, n);
    multiply(s.gram, s.gram, s.square, m, m, m);
    combine(Rule::kB, s.gram, Rule::kC, s.square, s.gram, m * m);
    multiply(s.gram, s.x, s.other, m, n, m);
    combine(Rule::kA, s.x, 1.0F, s.other, s.x, m * n);
  }
}

}  // namespace

void step_orthogonal(Param& p, const backend::StepTask& task, std::byte* workspace) {
  Scratch s = Scratch::of(p.rows, p.columns, workspace);
  backend::StepTask momentum = task;
  momentum.form = backend::Form::kDirection;
  momentum.weights = {math::find_weights("fp32"), reinterpret_cast<std::uint8_t*>(s.x), nullptr,
                      nullptr};
  run_all_ranges(p, momentum);

  const bool tall = p.rows > p.columns;
  if (tall) {
    transpose(s.x, s.other, p.rows, p.columns);
    std::swap(s.x, s.other);
  }
  const std::int64_t m = std::min(p.rows, p.columns);
  const std::int64_t n = std::max(p.rows, p.columns);
  orthogonalise(s, m, n, task.terms[Rule::kEps], static_cast<int>(task.terms[Rule::kIterations]));
  if (tall) {
    transpose(s.x, s.other, m, n);
    std::swap(s.x, s.other);
  }

  const auto rows = static_cast<double>(p.rows);
  const auto columns = static_cast<double>(p.columns);
  const double scale = task.terms[Rule::kLikeAdam] != 0.0F
                           ? 0.2 * std::sqrt(std::max(rows, columns))
                           : std::sqrt(std::max(1.0, rows / columns));
  // The rule itself, without its momentum: the direction is the gradient.
  float terms[math::kMaxTerms] = {};
  terms[Rule::kMinusStep] = static_cast<float>(double{task.terms[Rule::kMinusStep]} * scale);
  terms[Rule::kGain] = 1.0F;
  terms[Rule::kAhead] = 1.0F;
  backend::StepTask update = task;
  update.terms = terms;
  update.grads = {s.x, false};
  update.grad_scale = 1.0F;
  update.finite_scale = 1.0F;
  update.state[0] = {};
  update.stats = nullptr;
  run_all_ranges(p, update);
}

}  // namespace nibble::optim
