// SPDX-License-Identifier: Apache-2.0
// An optimizer: groups of hyper-parameters, and parameters, each with its rule's states in formats
// of its own. Weights and gradients are borrowed; states belong to the optimizer.
//
// Not thread-safe per object; distinct objects may be used from distinct threads. Every function
// either does all of its work or throws Error (or bad_alloc) and changes nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "optim/options.h"
#include "optim/param.h"

namespace nibble::optim {

struct Group {
  int rule = 0;  // index in math::kRules
  std::vector<double> hyper;
  std::vector<const float*> source;  // on a device, by hyper-parameter; empty: none
};

struct StepInput {
  const void* const* grads = nullptr;  // grads[i] belongs to parameter i, of its dtype
  std::int64_t n_grads = 0;
  double grad_scale = 1.0;        // of float's range
  bool grads_are_finite = false;  // the caller warrants it
  bool skip_missing = false;      // null gradients are left out
  bool found_inf = false;         // the caller saw a gradient that is not finite
  // On a device. A step does not wait, unless its outcome is wanted.
  const float* device_found_inf = nullptr;  // not 0 there: as found_inf
  void* stream = nullptr;
  bool want_outcome = false;
  bool want_norm = false;
  double max_norm = 0.0;  // 0: no clipping
  bool collect_errors = false;
};

struct StepResult {
  bool taken = true;
  std::int64_t nonfinite = 0;
  double norm = 0.0;  // if it was asked for
};

// A Euclidean norm; the sum has a fixed tree (backend.h), so it does not depend on threads or
// instruction set.
struct Norm {
  double value = 0.0;  // of the finite elements
  std::int64_t nonfinite = 0;
};

class Optimizer {
 public:
  explicit Optimizer(Options options);

  std::int64_t add_group(const std::string& rule, const HyperValues& hypers);
  void add_format_pattern(std::string pattern, std::string format);
  // Returns the parameter's index.
  std::int64_t add_param(ParamSpec spec);
  void bind(std::int64_t index, void* weights, float* scales);
  void set_hyper(std::int64_t group, std::string_view name, double value);
  double hyper(std::int64_t group, std::string_view name) const;
  // From now on read from the device's memory in each step; null: no longer.
  void bind_hyper(std::int64_t group, std::string_view name, const float* source);
  // Number of steps taken: what the bias corrections and random numbers count.
  // Waits for the device, if there is one.
  std::int64_t step_count() const;
  void set_step_count(std::int64_t count);
  static constexpr std::int64_t kMaxStepCount = std::int64_t{1} << 53;

  StepResult step(const StepInput& input);

  // Of the last step on a device. Waits for it.
  StepResult last_result() const;

  std::int64_t param_count() const { return static_cast<std::int64_t>(params_.size()); }
  const Param& param(std::int64_t index) const;
  Param& param(std::int64_t index);
  const Group& group(std::int64_t index) const;
  // Scratch of matrix rules, shared by all parameters, and of rank-1 states, a parameter's own.
  std::uint64_t workspace_bytes() const;
  // Of the last step that collected, by rule state; empty if none did.
  const std::vector<backend::StepStats>& stats() const { return stats_; }
  const Options& options() const { return options_; }

 private:
  // A piece of parallel work, the same for any number of threads.
  struct Range {
    std::int64_t param, first, last;
  };

  void add_ranges(std::int64_t index, const Param& param);
  // The optimizer's own part of the weights ("master"), from the weights at `view`; once.
  static void adopt(Param& param, const backend::WeightView& view);
  void check_step(const StepInput& input) const;
  backend::Source grad_of(const StepInput& input, std::int64_t param) const;
  std::int64_t count_nonfinite(const StepInput& input);
  Norm grad_norm(const StepInput& input);
  void prepare_tasks(const StepInput& input, float grad_scale, bool skip_elements);
  void measure();
  void conclude_measures();
  void run_ranges();
  void run_matrices();
  void finish_rank1();
  void check_has_states(std::int64_t index, int hyper, std::string_view name) const;
  StepResult step_on_device(const StepInput& input);
  void make_device_step();
  void forget_device_step();
  std::vector<backend::DeviceGroup> device_groups() const;

  Options options_;
  Mode mode_ = Mode::kDefault;
  std::vector<Group> groups_;
  std::vector<std::pair<std::string, std::string>> patterns_;
  std::deque<Param> params_;  // callers hold pointers to their strings
  std::unordered_set<std::string> names_;
  std::vector<Range> ranges_;           // of element rules
  std::vector<Range> measured_;         // of those, what is measured first
  std::vector<Range> leaves_;           // of all parameters, for sums and counts over gradients
  std::vector<std::int64_t> matrices_;  // parameters whose rule works on the whole matrix

  // Scratch of a step, made when parameters are added.
  std::vector<backend::StepTask> tasks_;  // by parameter
  std::vector<backend::Measures> measures_;
  std::vector<backend::LeafSum> sums_;
  std::vector<backend::StepStats> range_stats_;
  std::vector<backend::StepStats> stats_;
  std::vector<float> terms_;           // by group
  std::uint64_t workspace_bytes_ = 0;  // what the matrix rules need
  Buffer64 workspace_;                 // the host's; a device step has its own
  std::int64_t step_count_ = 0;        // while there is no device_step_
  // Made by the first step after parameters or where they are have changed.
  std::unique_ptr<backend::DeviceStep> device_step_;
  std::vector<const void*> device_grads_;    // null for what has no elements
  const float* device_found_inf_ = nullptr;  // the last one that was looked at
};

// Of all tensors together; the value is infinite if any element is not finite.
Norm global_norm(const std::vector<std::pair<backend::Source, std::int64_t>>& tensors);

// out[i] += x[i] * scale, in parallel.
void accumulate(backend::Source x, std::int64_t count, float scale, float* out);

}  // namespace nibble::optim
