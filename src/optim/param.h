// SPDX-License-Identifier: Apache-2.0
// A parameter: which formats it got and why, and its state memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "optim/options.h"

namespace nibble::optim {

struct MemoryDelete {
  backend::Device* device = nullptr;  // null: the host's memory
  void operator()(std::byte* p) const noexcept;
};

// 64-byte aligned memory of a known size, the host's or a device's. Throws bad_alloc or Error.
struct Buffer64 {
  std::unique_ptr<std::byte[], MemoryDelete> data;
  std::uint64_t bytes = 0;

  static Buffer64 of(std::uint64_t bytes, backend::Device* device = nullptr,
                     std::string_view purpose = "");
  backend::Device* device() const { return data.get_deleter().device; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data.get());
  }
};

struct ParamSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string weight_format;  // "" for the optimizer's
  std::string state_format;   // "" for the optimizer's
  std::string grad_dtype;     // "" for the weights'
  std::int64_t group = 0;
  std::uint32_t tensor_id = 0;  // 0: a hash of the name
};

// What the caller sees of a state: arrays in the order of a checkpoint.
struct StateArray {
  std::string name;  // "exp_avg", "exp_avg.scale"
  const char* dtype;
  std::int64_t elements = 0;
  Buffer64 memory;
};

struct Param {
  ParamSpec spec;
  std::int64_t count = 0;
  std::int64_t rows = 1, columns = 1;  // as a matrix: [all but the last extent, the last]
  int rule = 0;                        // index in math::kRules
  int weights = 0;                     // index in math::kWeights
  backend::Device* device = nullptr;   // where its memory is; null: the host
  std::int64_t block = 0;              // 0: nothing has blocks
  std::string formats;                 // as the caller is told
  std::string reason;                  // why these formats
  std::uint64_t state_bytes = 0;
  std::vector<StateArray> arrays;
  backend::StateView view[math::kMaxStates];
  backend::WeightView weight_view;
  bool grads_are_bf16 = false;
  bool has_weights = false;  // bound
  bool has_extra = false;    // the optimizer's own part of the weights is set

  bool rank1 = false;      // some state has rank-1 scales
  Buffer64 next_scales;    // of rank-1 states: rows and columns after the step
  Buffer64 column_maxima;  // by range, then rank-1 state: `columns` floats
  std::int64_t range = 0;  // elements of a piece of parallel work
  // What a factored second moment keeps (rule adafactor on matrices), else null.
  float* factored_row = nullptr;
  float* factored_column = nullptr;

  std::int64_t task_block() const;  // elements at a time
  std::uint32_t tensor_id() const;
};

// The formats chosen by name and size, before any state is made.
struct FormatChoice {
  std::string text;
  std::string reason;
};

// Throws Error for a shape or a format that cannot be. `hyper` decides which states are left out.
Param make_param(const Options& options, Mode mode, const FormatChoice& choice, int rule,
                 const std::vector<double>& hyper, ParamSpec spec);
std::int64_t count_elements(const ParamSpec& spec);
FormatChoice choose_formats(const Options& options,
                            const std::vector<std::pair<std::string, std::string>>& patterns,
                            const ParamSpec& spec, std::int64_t count);

}  // namespace nibble::optim
