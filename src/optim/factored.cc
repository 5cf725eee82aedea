// SPDX-License-Identifier: Apache-2.0
// Adafactor (math/rules/adafactor.h): the means of rows and columns, the update with its root mean
// square, then the clipped update through the element-wise step.
#include <algorithm>
#include <cmath>

#include "backend/float_environment.h"
#include "backend/matrix_scratch.h"
#include "core/parallel.h"
#include "optim/matrix_rules.h"

namespace nibble::optim {
namespace {

using Rule = math::Adafactor;
using Scratch = backend::FactoredScratch;

float grad_at(const backend::StepTask& task, std::int64_t i) {
  const float grad = task.grads.is_bf16
                         ? math::bf16_to_float(static_cast<const math::bf16*>(task.grads.data)[i])
                         : static_cast<const float*>(task.grads.data)[i];
  return backend::is_skipped(task, grad) ? 0.0F : grad * task.grad_scale;
}

// Means of grad^2 + eps into the moving averages of rows; sums of columns by piece.
void add_rows(const Param& p, const backend::StepTask& task, std::int64_t piece,
              const Scratch& scratch) {
  const double eps = task.terms[Rule::kEps];
  double* columns = scratch.partial + piece * p.columns;
  const std::int64_t first = piece * scratch.rows_in_piece;
  std::fill(columns, columns + p.columns, 0.0);
  for (std::int64_t r = first; r < std::min(first + scratch.rows_in_piece, p.rows); ++r) {
    double sum = 0.0;
    for (std::int64_t c = 0; c < p.columns; ++c) {
      const double grad = grad_at(task, r * p.columns + c);
      const double square = grad * grad + eps;
      columns[c] += square;
      sum += square;
    }
    const double mean = sum / static_cast<double>(p.columns);
    p.factored_row[r] = math::saturate(double{task.terms[Rule::kBeta2]} * p.factored_row[r] +
                                       double{task.terms[Rule::kGain2]} * mean);
  }
}

void add_columns(const Param& p, const backend::StepTask& task, const Scratch& scratch) {
  for (std::int64_t c = 0; c < p.columns; ++c) {
    double sum = 0.0;
    for (std::int64_t piece = 0; piece < scratch.pieces; ++piece) {
      sum += scratch.partial[piece * p.columns + c];
    }
    const double mean = sum / static_cast<double>(p.rows);
    p.factored_column[c] = math::saturate(double{task.terms[Rule::kBeta2]} * p.factored_column[c] +
                                          double{task.terms[Rule::kGain2]} * mean);
  }
}

template <class Body>
void for_each_piece(std::int64_t count, const Body& body) {
  parallel_for(count, [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    body(i);
  });
}

void set_factors(const Param& p, const Scratch& scratch) {
  double mean = 0.0;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    mean += p.factored_row[r];
  }
  mean /= static_cast<double>(p.rows);
  for (std::int64_t r = 0; r < p.rows; ++r) {
    scratch.row_factor[r] = static_cast<float>(1.0 / std::sqrt(p.factored_row[r] / mean));
  }
  for (std::int64_t c = 0; c < p.columns; ++c) {
    scratch.column_factor[c] = static_cast<float>(1.0 / std::sqrt(double{p.factored_column[c]}));
  }
}

void factored_update(Param& p, const backend::StepTask& task, const Scratch& scratch) {
  for_each_piece(scratch.pieces, [&](std::int64_t i) { add_rows(p, task, i, scratch); });
  add_columns(p, task, scratch);
  set_factors(p, scratch);
  for_each_piece(p.rows, [&](std::int64_t r) {
    for (std::int64_t c = 0; c < p.columns; ++c) {
      const std::int64_t i = r * p.columns + c;
      scratch.update[i] = grad_at(task, i) * (scratch.row_factor[r] * scratch.column_factor[c]);
    }
  });
}

void whole_update(const Param& p, const backend::StepTask& task, const Scratch& scratch) {
  auto* squares = reinterpret_cast<float*>(p.view[1].data);
  const float beta = task.terms[Rule::kBeta2];
  const float gain = task.terms[Rule::kGain2];
  const float eps = task.terms[Rule::kEps];
  for_each_piece(math::block_count(p.count, p.range), [&](std::int64_t piece) {
    const std::int64_t last = std::min((piece + 1) * p.range, p.count);
    for (std::int64_t i = piece * p.range; i < last; ++i) {
      const float grad = grad_at(task, i);
      squares[i] = math::saturate(beta * squares[i] + gain * (grad * grad + eps));
      scratch.update[i] = grad / std::sqrt(squares[i]);
    }
  });
}

// max(eps2, rms of the weights), for scale_parameter: of float weights as they are, of others as
// the step decodes them.
double weight_rms(const Param& p, const backend::StepTask& task, const Scratch& scratch) {
  const math::WeightInfo& info = math::kWeights[p.weights];
  parallel_for(scratch.leaves, [&](std::int64_t leaf) {
    const backend::ScopedFloatEnvironment environment;
    float block[math::kMaxBlock];
    double sum = 0.0;
    const std::int64_t last = std::min((leaf + 1) * backend::kSumLeaf, p.count);
    for (std::int64_t i = leaf * backend::kSumLeaf; i < last; i += task.block) {
      const std::int64_t n = std::min(task.block, last - i);
      const backend::WeightView& w = task.weights;
      const math::WeightBlock at{w.data + i * (info.bits / 8),
                                 w.extra != nullptr ? w.extra + i * (info.extra_bits / 8) : nullptr,
                                 w.scale != nullptr ? w.scale + i / task.block : nullptr};
      const float* x = block;
      if (info.decode != nullptr) {
        info.decode(at, n, block);
      } else {
        x = reinterpret_cast<const float*>(info.in_place == math::WeightsInPlace::kExtra ? at.extra
                                                                                         : at.data);
      }
      for (std::int64_t j = 0; j < n; ++j) {
        sum += double{x[j]} * double{x[j]};
      }
    }
    scratch.sums[leaf] = sum;
  });
  double total = 0.0;
  for (std::int64_t i = 0; i < scratch.leaves; ++i) {
    total += scratch.sums[i];
  }
  return std::max(double{task.terms[Rule::kFloor]},
                  std::sqrt(total / static_cast<double>(p.count)));
}

}  // namespace

void step_factored(Param& p, const backend::StepTask& task, std::byte* workspace) {
  const Scratch scratch = Scratch::of(p.rows, p.columns, workspace);
  if (p.factored_row != nullptr) {
    factored_update(p, task, scratch);
  } else {
    whole_update(p, task, scratch);
  }
  const double squares = sum_of_squares(scratch.update, p.count, scratch.sums);
  const double rms = std::sqrt(squares / static_cast<double>(p.count));
  const double clip = std::max(1.0, rms / double{task.terms[Rule::kThreshold]});

  float terms[math::kMaxTerms];
  std::copy(task.terms, task.terms + Rule::kTerms, terms);
  double step = -double{terms[Rule::kMinusStep]};
  backend::StepTask last = task;
  if (terms[Rule::kByRms] != 0.0F) {
    step *= weight_rms(p, task, scratch);
  }
  terms[Rule::kMinusStep] = static_cast<float>(-step);
  last.keep = static_cast<float>(1.0 - step * double{task.decay});
  last.terms = terms;
  last.grads = {scratch.update, false};
  last.grad_scale = static_cast<float>(1.0 / clip);
  last.finite_scale = 1.0F;
  last.state[1] = {};  // done above
  run_all_ranges(p, last);
}

}  // namespace nibble::optim
