// SPDX-License-Identifier: Apache-2.0
// An optimizer: parameters, each with the rule's states in a format of its own. Weights and
// gradients are borrowed; states belong to the optimizer.
//
// Not thread-safe per object; distinct objects may be used from distinct threads. Every function
// either does all of its work or throws Error (or bad_alloc) and changes nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace nibble::optim {

// Whose numerical conventions are followed (src/math/README.md).
enum class Mode { kDefault, kTorch, kBnb };
enum class Nonfinite { kSkipStep, kSkipElement, kPropagate };

struct Options {
  std::string rule = "adamw";
  std::string state_format = "int8";
  std::int64_t block = math::kDefaultBlock;
  std::string mode = "default";
  math::Hyper hyper;
  Nonfinite nonfinite = Nonfinite::kSkipStep;
  std::int64_t min_quantized_elements = 4096;
};

struct ParamSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string state_format;  // "" for the optimizer's
};

struct AlignedDelete {
  void operator()(std::byte* p) const noexcept;
};
using Buffer = std::unique_ptr<std::byte[], AlignedDelete>;

// What the caller sees of a state: one or two arrays in the order of a checkpoint.
struct StateArray {
  std::string name;  // "exp_avg", "exp_avg.absmax"
  const char* dtype;
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
  Buffer data;
};

struct Param {
  ParamSpec spec;
  std::int64_t count = 0;
  int format = 0;  // index in math::kFormats
  std::int64_t block = 0;
  std::string reason;  // why this format
  std::uint64_t state_bytes = 0;
  std::vector<StateArray> arrays;
  backend::StateView view[math::kMaxStates];
  float* weights = nullptr;
};

struct StepResult {
  bool taken = true;
  std::int64_t nonfinite = 0;
};

class Optimizer {
 public:
  explicit Optimizer(Options options);

  // Returns the parameter's index.
  std::int64_t add_param(ParamSpec spec);
  void bind(std::int64_t index, float* weights);
  // By the names of Hyper's fields.
  void set_hyper(std::string_view name, double value);
  double hyper(std::string_view name) const;
  // Number of steps taken: what the bias corrections count.
  std::int64_t step_count() const { return step_count_; }
  void set_step_count(std::int64_t count);

  // grads[i] belongs to parameter i. With `checked` the caller warrants that all are finite.
  StepResult step(const float* const* grads, std::int64_t n_grads, float grad_scale, bool checked);

  std::int64_t param_count() const { return static_cast<std::int64_t>(params_.size()); }
  const Param& param(std::int64_t index) const;
  const StateArray& state(std::int64_t param, std::int64_t index) const;
  void load_state(std::int64_t param, std::int64_t index, const void* data, std::uint64_t bytes);
  const Options& options() const { return options_; }

 private:
  struct Range {
    std::int64_t param, first, last;
  };

  void check_step(const float* const* grads, std::int64_t n_grads, float grad_scale) const;
  std::int64_t count_nonfinite(const float* const* grads, float grad_scale) const;
  void run(const float* const* grads, float grad_scale, bool skip_elements);

  Options options_;
  int rule_ = 0;
  Mode mode_ = Mode::kDefault;
  std::vector<Param> params_;
  std::vector<Range> ranges_;  // the units of parallel work, the same for any thread count
  mutable std::vector<std::int64_t> range_nonfinite_;
  std::int64_t step_count_ = 0;
};

// The Euclidean norm of all tensors together; the sum has a fixed tree (backend.h), so it does not
// depend on threads or instruction set. Infinity if any element is not finite.
struct Norm {
  double value = 0.0;
  std::int64_t nonfinite = 0;
};
Norm global_norm(const float* const* tensors, const std::int64_t* counts, std::int64_t n);

}  // namespace nibble::optim
