// SPDX-License-Identifier: Apache-2.0
// The contract of a backend whose work runs on a device's own memory and queues. It takes whole
// steps of many tensors, which it enqueues without waiting. The arithmetic is that of the reference
// backend, to the bit.
//
// Errors are thrown as Error: kOutOfMemory with what asked for how much, kInternal for the driver's
// own. Not thread-safe, but for memory functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "math/formats/ggml_blocks.h"

namespace nibble::backend {

enum class Nonfinite : std::int32_t { kSkipStep, kSkipElement, kPropagate };

// One tensor of a step; pointers are the device's.
struct DeviceTensor {
  StepTask task;  // without gradients, terms and what changes from step to step
  std::int64_t count = 0;
  std::int64_t rows = 1;   // as a matrix; task.columns are its columns
  std::int64_t range = 0;  // elements of a partial sum (Optimizer's ranges)
  std::int32_t group = 0;
  float* factored_row = nullptr;  // RuleKind::kFactored
  float* factored_column = nullptr;
};

struct DeviceGroup {
  int rule = 0;  // index in math::kRules
  double hyper[math::kMaxHypers] = {};
  // On the device; where not null, the hyper-parameter is read from there in each step.
  const float* source[math::kMaxHypers] = {};
};

struct DeviceStepInput {
  const void* const* grads = nullptr;  // one a tensor; null: left out of this step
  float grad_scale = 1.0F;
  double max_norm = 0.0;  // 0: no clipping
  bool want_norm = false;
  bool grads_are_finite = false;
  bool collect_errors = false;
  Nonfinite nonfinite = Nonfinite::kSkipStep;
  const float* found_inf = nullptr;  // on the device; not 0 there: the step is not taken
  void* stream = nullptr;
};

struct DeviceOutcome {
  std::int64_t step = 0;  // taken so far
  bool taken = true;      // the last one
  std::int64_t nonfinite = 0;
  double norm = 0.0;
};

// Steps of a fixed list of tensors. Its tables lie on the device, so a step is a handful of
// launches and can be captured in a graph once its gradients' pointers are known.
class DeviceStep {
 public:
  virtual ~DeviceStep() = default;
  // Before the next run, where they have changed.
  virtual void set_groups(const std::vector<DeviceGroup>& groups) = 0;
  virtual void set_step_count(std::int64_t count) = 0;
  virtual void run(const DeviceStepInput& input) = 0;
  // Waits for the last run.
  virtual DeviceOutcome outcome() = 0;
  // Of the last run that collected, by tensor. Waits for it.
  virtual std::vector<StepStats> stats() = 0;
};

// Pinned: of the host, for copies that are not staged.
enum class MemoryKind { kDevice, kPinned };

struct DeviceAllocation {
  std::string purpose;
  MemoryKind kind = MemoryKind::kDevice;
  std::uint64_t bytes = 0;
  std::int64_t count = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const std::string& name() const = 0;  // "cuda:0"

  // Zero bytes give memory too. `purpose` is what the lists and the error say.
  virtual std::byte* allocate(MemoryKind kind, std::uint64_t bytes, std::string_view purpose) = 0;
  // Waits for all work that could use it. False: it is none that allocate() gave.
  virtual bool release(std::byte* memory) noexcept = 0;
  // Of the device's own; 0: what it has.
  virtual void set_memory_limit(std::uint64_t bytes) = 0;
  virtual std::vector<DeviceAllocation> allocations() const = 0;  // by purpose, largest first

  // These wait for all earlier work.
  virtual void read(void* host, const void* device, std::uint64_t bytes) = 0;
  virtual void write(void* device, const void* host, std::uint64_t bytes) = 0;
  virtual void fill(void* device, std::uint8_t value, std::uint64_t bytes) = 0;
  // Between any two places; enqueued.
  virtual void copy(void* to, const void* from, std::uint64_t bytes, void* stream) = 0;
  virtual bool is_capturing(void* stream) = 0;  // into a graph
  // Whether kernels may use this pointer.
  virtual bool is_device_memory(const void* memory) = 0;

  virtual std::unique_ptr<DeviceStep> make_step(const std::vector<DeviceTensor>& tensors,
                                                const std::vector<DeviceGroup>& groups) = 0;

  // As Backend's, over whole tensors of one or more elements; enqueued.
  virtual void quantize(const float* x, std::int64_t n, std::int64_t block, int format,
                        bool is_signed, math::Rounding rounding, std::uint8_t* codes, float* scale,
                        void* stream) = 0;
  virtual void dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n,
                          std::int64_t block, int format, bool is_signed, float* out,
                          void* stream) = 0;
  virtual void accumulate(Source x, std::int64_t n, float scale, float* out, void* stream) = 0;
  // `count` blocks of a GGUF type to floats.
  virtual void decode_ggml(math::GgmlType type, const std::byte* blocks, std::int64_t count,
                           float* out, void* stream) = 0;
  // As those of backend/scales.h.
  virtual void subtract_mean(float* x, std::int64_t n, float* mean, void* stream) = 0;
  virtual void add(float* x, std::int64_t n, const float* value, void* stream) = 0;
};

// The CUDA device of that number. Error(kUnsupported) without one, or in a build without CUDA.
Device& cuda_device(int index);

}  // namespace nibble::backend
