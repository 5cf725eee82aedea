// SPDX-License-Identifier: Apache-2.0
// A CUDA device as a backend: memory and whole-tensor functions. Steps stand in step.cc.
#include "backend/device.h"

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <mutex>

#include "core/status.h"
#include "cuda/check.h"
#include "cuda/current_device.h"
#include "cuda/memory.h"
#include "cuda/optim/launch.h"
#include "cuda/step.h"

namespace nibble::cuda {
namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

class CudaDevice final : public backend::Device {
 public:
  explicit CudaDevice(int index) : index_(index), name_(fmt::format("cuda:{}", index)) {}

  const std::string& name() const override { return name_; }

  std::byte* allocate(backend::MemoryKind kind, std::uint64_t bytes,
                      std::string_view purpose) override {
    const ScopedDevice current(index_);
    return pool_.allocate(kind, bytes, purpose);
  }
  bool release(std::byte* memory) noexcept override {
    int before = index_;
    static_cast<void>(cudaGetDevice(&before));
    static_cast<void>(cudaSetDevice(index_));
    const bool known = pool_.release(memory);
    static_cast<void>(cudaSetDevice(before));
    return known;
  }
  void set_memory_limit(std::uint64_t bytes) override {
    const ScopedDevice current(index_);
    pool_.set_limit(bytes);
  }
  std::vector<backend::DeviceAllocation> allocations() const override {
    return pool_.allocations();
  }

  void read(void* host, const void* device, std::uint64_t bytes) override {
    const ScopedDevice current(index_);
    check(cudaDeviceSynchronize(), "waiting for the device");
    if (bytes > 0) {
      check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy to the host");
    }
  }
  void write(void* device, const void* host, std::uint64_t bytes) override {
    const ScopedDevice current(index_);
    check(cudaDeviceSynchronize(), "waiting for the device");
    if (bytes > 0) {
      check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
      // Pageable memory may only have been staged; streams that do not block would not wait for it.
      check(cudaDeviceSynchronize(), "waiting for the device");
    }
  }
  void fill(void* device, std::uint8_t value, std::uint64_t bytes) override {
    const ScopedDevice current(index_);
    check(cudaDeviceSynchronize(), "waiting for the device");
    if (bytes > 0) {
      check(cudaMemset(device, value, bytes), "cudaMemset");
      check(cudaDeviceSynchronize(), "waiting for the device");
    }
  }
  void copy(void* to, const void* from, std::uint64_t bytes, void* stream) override {
    const ScopedDevice current(index_);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), "copy");
  }
  bool is_device_memory(const void* memory) override {
    const ScopedDevice current(index_);
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, memory) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    switch (attributes.type) {
      case cudaMemoryTypeDevice:
        return attributes.device == index_;
      case cudaMemoryTypeHost:  // pinned
      case cudaMemoryTypeManaged:
        return attributes.devicePointer != nullptr;
      default:  // also where the device could read all of the host's memory, slowly
        return false;
    }
  }
  bool is_capturing(void* stream) override {
    const ScopedDevice current(index_);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream_of(stream), &status), "asking the stream");
    return status != cudaStreamCaptureStatusNone;
  }

  std::unique_ptr<backend::DeviceStep> make_step(
      const std::vector<backend::DeviceTensor>& tensors,
      const std::vector<backend::DeviceGroup>& groups) override {
    const ScopedDevice current(index_);
    return make_cuda_step(*this, index_, tensors, groups);
  }

  void quantize(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
                math::Rounding rounding, std::uint8_t* codes, float* scale, void* stream) override {
    const ScopedDevice current(index_);
    check(
        launch_quantize(x, n, block, format, is_signed, rounding, codes, scale, stream_of(stream)),
        "quantize");
  }
  void dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n, std::int64_t block,
                  int format, bool is_signed, float* out, void* stream) override {
    const ScopedDevice current(index_);
    check(launch_dequantize(codes, scale, n, block, format, is_signed, out, stream_of(stream)),
          "dequantize");
  }
  void accumulate(backend::Source x, std::int64_t n, float scale, float* out,
                  void* stream) override {
    const ScopedDevice current(index_);
    check(launch_accumulate(x, n, scale, out, stream_of(stream)), "accumulate");
  }
  void decode_ggml(math::GgmlType type, const std::byte* blocks, std::int64_t count, float* out,
                   void* stream) override {
    const ScopedDevice current(index_);
    check(launch_decode_ggml(type, blocks, count, out, stream_of(stream)), "decode_ggml");
  }
  void subtract_mean(float* x, std::int64_t n, float* mean, void* stream) override {
    const ScopedDevice current(index_);
    check(launch_subtract_mean(x, n, mean, stream_of(stream)), "subtract_mean");
  }
  void add(float* x, std::int64_t n, const float* value, void* stream) override {
    const ScopedDevice current(index_);
    check(launch_add(x, n, value, stream_of(stream)), "add");
  }

 private:
  int index_;
  std::string name_;
  MemoryPool pool_;
};

constexpr int kMaxDevices = 64;

}  // namespace
}  // namespace nibble::cuda

namespace nibble::backend {

Device& cuda_device(int index) {
  // Never destroyed: the driver may be gone before static objects are.
  static auto& devices = *new std::array<std::unique_ptr<cuda::CudaDevice>, cuda::kMaxDevices>;
  static std::mutex mutex;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    fail(StatusCode::kUnsupported, "no CUDA device: {}",
         error != cudaSuccess ? cudaGetErrorString(error) : "the driver lists none");
  }
  if (index < 0 || index >= count || index >= cuda::kMaxDevices) {
    fail(StatusCode::kUnsupported, "no CUDA device {}: there are {}", index, count);
  }
  const std::lock_guard lock(mutex);
  auto& device = devices[static_cast<std::size_t>(index)];
  if (device == nullptr) {
    device = std::make_unique<cuda::CudaDevice>(index);
  }
  return *device;
}

}  // namespace nibble::backend
