// SPDX-License-Identifier: Apache-2.0
#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "backend/float_environment.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "core/status.h"
#include "optim/param.h"
#include "optim/quantize.h"

namespace nibble::optim {
namespace {

constexpr std::int64_t kRangeElements = 1 << 16;  // a multiple of every block
static_assert(kRangeElements % math::kMaxBlock == 0);

void check_number(const char* name, double value, bool ok, const char* expected) {
  if (!ok) {  // also NaN: comparisons with it are false
    fail(StatusCode::kInvalidArgument, "{} is {}: {} expected", name, value, expected);
  }
}

void check_hyper(const math::Hyper& h) {
  check_number("learning_rate", h.learning_rate,
               h.learning_rate >= 0 && std::isfinite(h.learning_rate), "a finite number >= 0");
  check_number("beta1", h.beta1, h.beta1 >= 0 && h.beta1 < 1, "0 <= beta1 < 1");
  check_number("beta2", h.beta2, h.beta2 >= 0 && h.beta2 < 1, "0 <= beta2 < 1");
  check_number("eps", h.eps, h.eps >= 0 && std::isfinite(h.eps), "a finite number >= 0");
  check_number("weight_decay", h.weight_decay, h.weight_decay >= 0 && std::isfinite(h.weight_decay),
               "a finite number >= 0");
}

double& hyper_field(math::Hyper& h, std::string_view name) {
  struct Field {
    std::string_view name;
    double math::Hyper::*member;
  };
  static constexpr Field kFields[] = {{"learning_rate", &math::Hyper::learning_rate},
                                      {"beta1", &math::Hyper::beta1},
                                      {"beta2", &math::Hyper::beta2},
                                      {"eps", &math::Hyper::eps},
                                      {"weight_decay", &math::Hyper::weight_decay}};
  for (const Field& field : kFields) {
    if (field.name == name) {
      return h.*field.member;
    }
  }
  fail(StatusCode::kInvalidArgument, "unknown hyper-parameter \"{}\"", name);
}

Mode find_mode(const std::string& name) {
  if (name == "default") {
    return Mode::kDefault;
  }
  if (name == "torch") {
    return Mode::kTorch;
  }
  if (name == "bnb") {
    return Mode::kBnb;
  }
  fail(StatusCode::kUnsupported, "unknown mode \"{}\"; there are \"default\", \"torch\", \"bnb\"",
       name);
}

void check_format(const std::string& name, Mode mode, const char* who) {
  const int format = math::find_format(name);
  if (format < 0) {
    fail(StatusCode::kUnsupported, "{}: unknown state format \"{}\"", who, name);
  }
  if (mode == Mode::kTorch && math::kFormats[format].block_wise) {
    fail(StatusCode::kUnsupported,
         "{}: mode \"torch\" has fp32 states only, not \"{}\"; use mode \"default\" or \"bnb\"",
         who, name);
  }
}

}  // namespace

Optimizer::Optimizer(Options options) : options_(std::move(options)) {
  rule_ = math::find_rule(options_.rule);
  if (rule_ < 0) {
    fail(StatusCode::kUnsupported, "unknown rule \"{}\"", options_.rule);
  }
  mode_ = find_mode(options_.mode);
  check_format(options_.state_format, mode_, "optimizer");
  check_block(options_.block);
  if (options_.min_quantized_elements < 0) {
    fail(StatusCode::kInvalidArgument, "min_quantized_elements is {}: 0 or more expected",
         options_.min_quantized_elements);
  }
  check_hyper(options_.hyper);
  backend::active_backend();  // a wrong NIBBLE_ISA is reported here, not at the first step
}

std::int64_t Optimizer::add_param(ParamSpec spec) {
  if (!spec.state_format.empty()) {
    check_format(spec.state_format, mode_, "parameter");
  }
  Param param = make_param(options_, math::kRules[rule_], std::move(spec));
  const std::int64_t index = param_count();
  std::vector<Range> ranges = ranges_;
  for (std::int64_t first = 0; first < param.count; first += kRangeElements) {
    ranges.push_back({index, first, std::min(first + kRangeElements, param.count)});
  }
  std::vector<std::int64_t> counts(ranges.size());
  params_.push_back(std::move(param));  // the last that can fail, and it changes nothing then
  ranges_.swap(ranges);
  range_nonfinite_.swap(counts);
  return index;
}

const Param& Optimizer::param(std::int64_t index) const {
  if (index < 0 || index >= param_count()) {
    fail(StatusCode::kInvalidArgument, "no parameter {}: there are {}", index, param_count());
  }
  return params_[static_cast<std::size_t>(index)];
}

void Optimizer::bind(std::int64_t index, float* weights) {
  const Param& known = param(index);
  if (weights == nullptr && known.count > 0) {
    fail(StatusCode::kInvalidArgument, "parameter {} (\"{}\"): weights is null", index,
         known.spec.name);
  }
  params_[static_cast<std::size_t>(index)].weights = weights;
}

void Optimizer::set_hyper(std::string_view name, double value) {
  math::Hyper hyper = options_.hyper;
  hyper_field(hyper, name) = value;
  check_hyper(hyper);
  options_.hyper = hyper;
}

double Optimizer::hyper(std::string_view name) const {
  math::Hyper hyper = options_.hyper;
  return hyper_field(hyper, name);
}

void Optimizer::set_step_count(std::int64_t count) {
  if (count < 0) {
    fail(StatusCode::kInvalidArgument, "step count is {}: 0 or more expected", count);
  }
  step_count_ = count;
}

void Optimizer::check_step(const float* const* grads, std::int64_t n_grads,
                           float grad_scale) const {
  if (params_.empty()) {
    fail(StatusCode::kWrongOrder, "step: the optimizer has no parameters; add_param first");
  }
  if (n_grads != param_count()) {
    fail(StatusCode::kInvalidArgument, "step: {} gradients for {} parameters", n_grads,
         param_count());
  }
  check_number("grad_scale", grad_scale, std::isfinite(grad_scale), "a finite number");
  for (std::int64_t i = 0; i < n_grads; ++i) {
    const Param& p = params_[static_cast<std::size_t>(i)];
    if (p.count == 0) {
      continue;
    }
    if (p.weights == nullptr) {
      fail(StatusCode::kWrongOrder, "step: parameter {} (\"{}\") has no weights; bind first", i,
           p.spec.name);
    }
    if (grads[i] == nullptr) {
      fail(StatusCode::kInvalidArgument, "step: the gradient of parameter {} (\"{}\") is null", i,
           p.spec.name);
    }
  }
}

std::int64_t Optimizer::count_nonfinite(const float* const* grads, float grad_scale) const {
  const backend::Backend& backend = backend::active_backend();
  parallel_for(static_cast<std::int64_t>(ranges_.size()), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const Range& range = ranges_[static_cast<std::size_t>(i)];
    range_nonfinite_[static_cast<std::size_t>(i)] = backend.count_nonfinite(
        grads[range.param] + range.first, range.last - range.first, grad_scale);
  });
  return std::accumulate(range_nonfinite_.begin(), range_nonfinite_.end(), std::int64_t{0});
}

StepResult Optimizer::step(const float* const* grads, std::int64_t n_grads, float grad_scale,
                           bool checked) {
  check_step(grads, n_grads, grad_scale);
  StepResult result;
  if (!checked && options_.nonfinite != Nonfinite::kPropagate) {
    result.nonfinite = count_nonfinite(grads, grad_scale);
    if (result.nonfinite > 0 && options_.nonfinite == Nonfinite::kSkipStep) {
      result.taken = false;
      return result;
    }
  }
  run(grads, grad_scale, result.nonfinite > 0);
  return result;
}

void Optimizer::run(const float* const* grads, float grad_scale, bool skip_elements) {
  const backend::Backend& backend = backend::active_backend();
  float terms[math::kMaxTerms] = {};
  {
    const backend::ScopedFloatEnvironment environment;
    math::kRules[rule_].prepare(options_.hyper, step_count_ + 1, terms);
  }
  const auto rounding = mode_ == Mode::kBnb ? math::Rounding::kNearest : math::Rounding::kSafe;
  parallel_for(static_cast<std::int64_t>(ranges_.size()), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const Range& range = ranges_[static_cast<std::size_t>(i)];
    const Param& param = params_[static_cast<std::size_t>(range.param)];
    backend::StepTask task;
    task.rule = rule_;
    task.weights = param.weights;
    task.grads = grads[range.param];
    std::copy(std::begin(param.view), std::end(param.view), std::begin(task.state));
    task.block = param.block > 0 ? param.block : math::kDefaultBlock;
    task.terms = terms;
    task.grad_scale = grad_scale;
    task.rounding = rounding;
    task.skip_nonfinite = skip_elements;
    backend.step(task, range.first, range.last);
  });
  ++step_count_;
}

const StateArray& Optimizer::state(std::int64_t index, std::int64_t array) const {
  const Param& p = param(index);
  if (array < 0 || array >= static_cast<std::int64_t>(p.arrays.size())) {
    fail(StatusCode::kInvalidArgument, "parameter {} (\"{}\"): no state {}: there are {}", index,
         p.spec.name, array, p.arrays.size());
  }
  return p.arrays[static_cast<std::size_t>(array)];
}

void Optimizer::load_state(std::int64_t index, std::int64_t array, const void* data,
                           std::uint64_t bytes) {
  const StateArray& target = state(index, array);
  if (bytes != target.bytes) {
    fail(StatusCode::kInvalidArgument,
         "state \"{}\" of parameter \"{}\": {} bytes given, it has {}", target.name,
         param(index).spec.name, bytes, target.bytes);
  }
  std::memcpy(target.data.get(), data, bytes);
}

Norm global_norm(const float* const* tensors, const std::int64_t* counts, std::int64_t n) {
  struct Leaf {
    const float* x;
    std::int64_t count;
  };
  std::vector<Leaf> leaves;
  for (std::int64_t t = 0; t < n; ++t) {
    for (std::int64_t first = 0; first < counts[t]; first += backend::kSumLeaf) {
      leaves.push_back({tensors[t] + first, std::min(backend::kSumLeaf, counts[t] - first)});
    }
  }
  const backend::Backend& backend = backend::active_backend();
  std::vector<backend::LeafSum> sums(leaves.size());
  parallel_for(static_cast<std::int64_t>(leaves.size()), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const Leaf& leaf = leaves[static_cast<std::size_t>(i)];
    sums[static_cast<std::size_t>(i)] = backend.sum_leaf(leaf.x, leaf.count);
  });
  const backend::ScopedFloatEnvironment environment;
  Norm out;
  double total = 0.0;
  for (const backend::LeafSum& sum : sums) {
    total += sum.sum_of_squares;
    out.nonfinite += sum.nonfinite;
  }
  out.value = out.nonfinite > 0 ? std::numeric_limits<double>::infinity() : std::sqrt(total);
  return out;
}

}  // namespace nibble::optim
