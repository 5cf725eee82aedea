// SPDX-License-Identifier: Apache-2.0
// Optimizer::step: checks, the norm of the gradients, and the passes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/float_environment.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "core/status.h"
#include "optim/matrix_rules.h"
#include "optim/optimizer.h"

namespace nibble::optim {
namespace {

template <class Range>
std::int64_t elements_of(const std::vector<Range>& ranges) {
  std::int64_t out = 0;
  for (const Range& range : ranges) {
    out += range.last - range.first;
  }
  return out;
}

// body(index, range) for all of them, in parallel. Neighbours go together until they have about
// the elements of one leaf (results do not depend on it), so that thousands of small tensors cost a
// pass and not thousands of tasks.
template <class Range, class Body>
void for_each(const std::vector<Range>& ranges, const Body& body) {
  const auto count = static_cast<std::int64_t>(ranges.size());
  const std::int64_t share = std::clamp<std::int64_t>(
      count * backend::kSumLeaf / std::max<std::int64_t>(elements_of(ranges), 1), 1, 64);
  parallel_for(math::block_count(count, share), [&](std::int64_t batch) {
    const backend::ScopedFloatEnvironment environment;
    for (std::int64_t i = batch * share; i < std::min((batch + 1) * share, count); ++i) {
      body(static_cast<std::size_t>(i), ranges[static_cast<std::size_t>(i)]);
    }
  });
}

constexpr double kInfinite = std::numeric_limits<double>::infinity();

Norm norm_of(const std::vector<backend::LeafSum>& sums) {
  Norm out;
  double total = 0.0;
  for (const backend::LeafSum& sum : sums) {
    total += sum.sum_of_squares;
    out.nonfinite += sum.nonfinite;
  }
  out.value = std::sqrt(total);
  return out;
}

}  // namespace

void Optimizer::check_step(const StepInput& input) const {
  if (params_.empty()) {
    fail(StatusCode::kWrongOrder, "step: the optimizer has no parameters; add_param first");
  }
  if (input.n_grads != param_count()) {
    fail(StatusCode::kInvalidArgument, "step: {} gradients for {} parameters", input.n_grads,
         param_count());
  }
  if (step_count_ >= kMaxStepCount) {
    fail(StatusCode::kWrongOrder, "step: {} steps were taken, which is the limit", step_count_);
  }
  check_float("grad_scale", input.grad_scale);
  if (!(input.max_norm >= 0) || !std::isfinite(input.max_norm)) {
    fail(StatusCode::kInvalidArgument, "max_grad_norm is {}: a finite number >= 0 expected",
         input.max_norm);
  }
  for (std::int64_t i = 0; i < input.n_grads; ++i) {
    const Param& p = params_[static_cast<std::size_t>(i)];
    if (p.count == 0 || (input.grads[i] == nullptr && input.skip_missing)) {
      continue;
    }
    if (!p.has_weights) {
      fail(StatusCode::kWrongOrder, "step: parameter {} (\"{}\") has no weights; bind first", i,
           p.spec.name);
    }
    if (input.grads[i] == nullptr) {
      fail(StatusCode::kInvalidArgument, "step: the gradient of parameter {} (\"{}\") is null", i,
           p.spec.name);
    }
  }
}

backend::Source Optimizer::grad_of(const StepInput& input, std::int64_t param) const {
  return {input.grads[param], params_[static_cast<std::size_t>(param)].grads_are_bf16};
}

std::int64_t Optimizer::count_nonfinite(const StepInput& input) {
  const backend::Backend& backend = backend::active_backend();
  for_each(leaves_, [&](std::size_t i, const Range& leaf) {
    const backend::Source grad = grad_of(input, leaf.param);
    sums_[i] = {};
    if (grad.data != nullptr) {
      sums_[i].nonfinite = backend.count_nonfinite(grad, leaf.first, leaf.last - leaf.first,
                                                   static_cast<float>(input.grad_scale));
    }
  });
  std::int64_t count = 0;
  for (const backend::LeafSum& sum : sums_) {
    count += sum.nonfinite;
  }
  return count;
}

Norm Optimizer::grad_norm(const StepInput& input) {
  const backend::Backend& backend = backend::active_backend();
  for_each(leaves_, [&](std::size_t i, const Range& leaf) {
    const backend::Source grad = grad_of(input, leaf.param);
    sums_[i] = {};
    if (grad.data != nullptr) {
      sums_[i] = backend.sum_leaf(grad, leaf.first, leaf.last - leaf.first,
                                  static_cast<float>(input.grad_scale));
    }
  });
  return norm_of(sums_);
}

StepResult Optimizer::step(const StepInput& input) {
  check_step(input);
  if (options_.device != nullptr) {
    return step_on_device(input);
  }
  const backend::ScopedFloatEnvironment environment;  // of this thread; workers have their own
  StepResult result;
  const Nonfinite policy = options_.nonfinite;
  auto scale = static_cast<float>(input.grad_scale);
  if (input.want_norm || input.max_norm > 0) {
    const Norm norm = grad_norm(input);
    result.nonfinite = norm.nonfinite;
    result.norm = norm.nonfinite > 0 && policy != Nonfinite::kSkipElement ? kInfinite : norm.value;
    if (input.max_norm > 0) {
      scale *= backend::clip_scale(norm.value, input.max_norm);
    }
  } else if (!input.grads_are_finite && policy != Nonfinite::kPropagate) {
    result.nonfinite = count_nonfinite(input);
  }
  result.taken = !input.found_inf && !(result.nonfinite > 0 && policy == Nonfinite::kSkipStep);
  if (!result.taken) {
    return result;
  }
  for (Param& p : params_) {
    if (p.has_weights) {  // after the load of a checkpoint from before the first bind
      adopt(p, p.weight_view);
    }
  }
  if (input.collect_errors) {
    std::vector<backend::StepStats> stats(params_.size());
    range_stats_.assign(ranges_.size(), {});
    stats_.swap(stats);
  }
  const bool skip_elements = result.nonfinite > 0 && policy == Nonfinite::kSkipElement;
  prepare_tasks(input, scale, skip_elements);
  if (!measured_.empty()) {
    measure();
    conclude_measures();
  }
  run_ranges();
  run_matrices();
  ++step_count_;
  return result;
}

void Optimizer::prepare_tasks(const StepInput& input, float grad_scale, bool skip_elements) {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    math::kRules[groups_[g].rule].prepare(groups_[g].hyper.data(), step_count_ + 1,
                                          terms_.data() + g * math::kMaxTerms);
  }
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const Param& p = params_[i];
    const auto group = static_cast<std::size_t>(p.spec.group);
    const double decay = groups_[group].hyper[math::kWeightDecay];
    backend::StepTask& task = tasks_[i];
    task = {};
    task.rule = p.rule;
    task.form = form_of(math::kRules[p.rule], mode_, options_.decay);
    task.weights = p.weight_view;
    task.grads = grad_of(input, static_cast<std::int64_t>(i));
    std::copy(std::begin(p.view), std::end(p.view), std::begin(task.state));
    task.block = p.task_block();
    task.columns = p.columns;
    task.terms = terms_.data() + group * math::kMaxTerms;
    task.grad_scale = grad_scale;
    task.finite_scale = static_cast<float>(input.grad_scale);
    task.keep = static_cast<float>(1.0 - groups_[group].hyper[math::kLearningRate] * decay);
    task.decay = static_cast<float>(decay);
    task.rounding = rounding_of(mode_);
    task.skip_nonfinite = skip_elements;
    task.random = {options_.seed, p.tensor_id(), static_cast<std::uint32_t>(step_count_ + 1),
                   math::RandomPurpose::kRounding};
    task.stats = input.collect_errors ? &stats_[i] : nullptr;
  }
}

void Optimizer::measure() {
  const backend::Backend& backend = backend::active_backend();
  for (Param& p : params_) {
    if (p.rank1) {
      std::memset(p.next_scales.data.get(), 0, p.next_scales.bytes);
    }
  }
  for_each(measured_, [&](std::size_t i, const Range& range) {
    const Param& p = params_[static_cast<std::size_t>(range.param)];
    backend::Measures& out = measures_[i];
    out = {};
    const auto pieces = static_cast<std::uint64_t>(math::block_count(p.count, p.range));
    const std::uint64_t bytes = p.column_maxima.bytes / std::max<std::uint64_t>(pieces, 1);
    auto* columns =
        reinterpret_cast<float*>(p.column_maxima.as<std::byte>() + range.first / p.range * bytes);
    for (int s = 0; p.rank1 && s < math::kMaxStates; ++s) {
      if (p.view[s].rank1.row != nullptr) {
        out.row_maximum[s] = p.view[s].rank1.next_row;
        out.column_maximum[s] = columns;
        columns += p.columns;
      }
    }
    const backend::StepTask& task = tasks_[static_cast<std::size_t>(range.param)];
    if (task.grads.data != nullptr) {
      backend.measure(task, range.first, range.last, &out);
    }
  });
}

// What the ranges found, put together in their order.
void Optimizer::conclude_measures() {
  for (std::size_t i = 0; i < measured_.size();) {
    const std::int64_t index = measured_[i].param;
    const Param& p = params_[static_cast<std::size_t>(index)];
    double weights = 0.0;
    double updates = 0.0;
    for (; i < measured_.size() && measured_[i].param == index; ++i) {
      weights += measures_[i].weight_squares;
      updates += measures_[i].update_squares;
      for (int s = 0; s < math::kMaxStates; ++s) {
        const float* found = measures_[i].column_maximum[s];
        float* into = p.view[s].rank1.next_column;
        for (std::int64_t c = 0; found != nullptr && c < p.columns; ++c) {
          into[c] = std::max(into[c], found[c]);
        }
      }
    }
    if (math::kRules[p.rule].kind == math::RuleKind::kTrustRatio) {
      const double ratio = weights > 0 && updates > 0 ? std::sqrt(weights) / std::sqrt(updates) : 1;
      backend::StepTask& task = tasks_[static_cast<std::size_t>(index)];
      const std::vector<double>& h = groups_[static_cast<std::size_t>(p.spec.group)].hyper;
      task.keep = static_cast<float>(1.0 - h[math::kLearningRate] * ratio * h[math::kWeightDecay]);
      task.step_scale = static_cast<float>(ratio);
    }
  }
}

void Optimizer::run_ranges() {
  const backend::Backend& backend = backend::active_backend();
  for_each(ranges_, [&](std::size_t i, const Range& range) {
    backend::StepTask task = tasks_[static_cast<std::size_t>(range.param)];
    if (task.grads.data == nullptr) {
      return;
    }
    if (task.stats != nullptr) {
      task.stats = &range_stats_[i];
    }
    backend.step(task, range.first, range.last);
  });
  for (std::size_t i = 0; i < range_stats_.size() && i < ranges_.size(); ++i) {
    backend::StepStats& into = stats_[static_cast<std::size_t>(ranges_[i].param)];
    into.add(range_stats_[i]);
  }
  range_stats_.clear();
  finish_rank1();
}

void Optimizer::finish_rank1() {
  for (std::size_t i = 0; i < params_.size(); ++i) {
    Param& p = params_[i];
    for (int s = 0; p.rank1 && tasks_[i].grads.data != nullptr && s < math::kMaxStates; ++s) {
      const backend::Rank1Scales& scales = p.view[s].rank1;
      if (scales.row != nullptr) {
        const auto bytes = [](std::int64_t n) {
          return static_cast<std::size_t>(n) * sizeof(float);
        };
        std::memcpy(const_cast<float*>(scales.row), scales.next_row, bytes(p.rows));
        std::memcpy(const_cast<float*>(scales.column), scales.next_column, bytes(p.columns));
      }
    }
  }
}

void Optimizer::run_matrices() {
  for (const std::int64_t index : matrices_) {
    const backend::StepTask& task = tasks_[static_cast<std::size_t>(index)];
    if (task.grads.data != nullptr) {
      step_matrix(params_[static_cast<std::size_t>(index)], task, workspace_.as<std::byte>());
    }
  }
}

Norm global_norm(const std::vector<std::pair<backend::Source, std::int64_t>>& tensors) {
  struct Leaf {
    backend::Source x;
    std::int64_t first, last;
  };
  std::vector<Leaf> leaves;
  for (const auto& [x, count] : tensors) {
    for (std::int64_t first = 0; first < count; first += backend::kSumLeaf) {
      leaves.push_back({x, first, std::min(first + backend::kSumLeaf, count)});
    }
  }
  const backend::Backend& backend = backend::active_backend();
  std::vector<backend::LeafSum> sums(leaves.size());
  for_each(leaves, [&](std::size_t i, const Leaf& leaf) {
    sums[i] = backend.sum_leaf(leaf.x, leaf.first, leaf.last - leaf.first, 1.0F);
  });
  const backend::ScopedFloatEnvironment environment;
  Norm out = norm_of(sums);
  out.value = out.nonfinite > 0 ? kInfinite : out.value;
  return out;
}

void accumulate(backend::Source x, std::int64_t count, float scale, float* out) {
  const backend::Backend& backend = backend::active_backend();
  parallel_for(math::block_count(count, backend::kSumLeaf), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const std::int64_t first = i * backend::kSumLeaf;
    backend.accumulate(x, first, std::min(backend::kSumLeaf, count - first), scale, out);
  });
}

}  // namespace nibble::optim
