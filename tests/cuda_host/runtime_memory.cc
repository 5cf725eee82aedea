// SPDX-License-Identifier: Apache-2.0
// The runtime's functions for memory, with NVIDIA's prototypes.
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_host/control.h"
#include "cuda_host/fault_report.h"
#include "cuda_host/runtime.h"

namespace nibble::cuda_host {
namespace {

cudaError_t allocate(void** result, std::size_t bytes, MemoryKind kind) {
  return call([&](Runtime& rt) {
    if (result == nullptr) {
      return cudaErrorInvalidValue;
    }
    *result = nullptr;
    if (const cudaError_t refused = rt.streams.refuse_in_capture(); refused != cudaSuccess) {
      rt.say("memory is allocated during a capture");
      return refused;
    }
    if (bytes == 0) {
      return cudaSuccess;
    }
    if (settings().guard) {
      report_faults();
    }
    *result = rt.memory.allocate(kind, bytes, settings());
    return *result != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}

// A driver waits for all work before it frees. In lazy mode that hidden synchronisation counts as a
// defect when the work uses the memory. Memory is freed after a sticky error too, so that a test's
// destructors leave nothing behind.
cudaError_t release(void* memory, MemoryKind kind, const char* function) {
  if (memory == nullptr) {
    return cudaSuccess;
  }
  const std::lock_guard lock(runtime().mutex);
  const Allocation* allocation = runtime().memory.find_start(memory);
  const bool known = allocation != nullptr && allocation->kind == kind;
  const cudaError_t status = call([&](Runtime& rt) {
    if (const cudaError_t refused = rt.streams.refuse_in_capture(); refused != cudaSuccess) {
      rt.say(std::string(function) + " is called during a capture");
      return refused;
    }
    if (!known) {
      rt.say(std::string(function) + " of " + rt.memory.describe(memory));
      return cudaErrorInvalidValue;
    }
    if (const Operation* user = rt.streams.find_user(*allocation)) {
      return rt.fail(cudaErrorIllegalAddress,
                     std::string(function) + " of " + rt.memory.describe(memory) +
                         " that is still to be used by " + user->work.name);
    }
    rt.streams.run_all();
    return cudaSuccess;
  });
  if (known && (status == cudaSuccess || runtime().sticky != cudaSuccess)) {
    runtime().memory.free(*allocation);
  }
  return status;
}

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  bool to_device;
  bool from_device;
};

bool is_device(const Runtime& rt, const void* address) {
  const Allocation* found = rt.memory.find(address);
  return found != nullptr && found->kind == MemoryKind::kDevice;
}

// One side of a copy or fill: all of it in one allocation of the device, or none of it in any.
bool fits(const Runtime& rt, const void* address, std::size_t bytes, bool device) {
  const Allocation* found = rt.memory.find(address);
  if (device || found != nullptr) {
    return rt.memory.contains({address, bytes}, device ? MemoryKind::kDevice : MemoryKind::kPinned);
  }
  return true;
}

cudaError_t check(Runtime& rt, const Copy& copy) {
  if (fits(rt, copy.to, copy.bytes, copy.to_device) &&
      fits(rt, copy.from, copy.bytes, copy.from_device)) {
    return cudaSuccess;
  }
  const auto side = [&](const void* address, bool device) {
    return std::string(device ? "device" : "host") + " side is " + rt.memory.describe(address);
  };
  rt.say("a copy of " + std::to_string(copy.bytes) + " bytes: its destination's " +
         side(copy.to, copy.to_device) + ", its source's " + side(copy.from, copy.from_device));
  return cudaErrorInvalidValue;
}

cudaError_t copy_async(Runtime& rt, Stream& stream, const Copy& copy) {
  if (const cudaError_t error = check(rt, copy); error != cudaSuccess || copy.bytes == 0) {
    return error;
  }
  const bool pageable_source = !copy.from_device && rt.memory.find(copy.from) == nullptr;
  const bool pageable_target = !copy.to_device && rt.memory.find(copy.to) == nullptr;
  if (stream.capture != nullptr && (pageable_source || pageable_target)) {
    stream.capture->invalid = true;
    rt.say("a copy of pageable host memory is captured");
    return cudaErrorStreamCaptureUnsupported;
  }
  Work work{"a copy of " + std::to_string(copy.bytes) + " bytes", {}, {}};
  work.uses = {{copy.to, copy.bytes}, {copy.from, copy.bytes}};
  if (pageable_source && copy.to_device) {  // staged at once: the caller may overwrite it
    const auto* low = static_cast<const char*>(copy.from);
    work.run = [copy, staged = std::vector<char>(low, low + copy.bytes)] {
      const OpenMemory open;
      std::memcpy(copy.to, staged.data(), copy.bytes);
    };
  } else {
    work.run = [copy] {
      const OpenMemory open;
      std::memmove(copy.to, copy.from, copy.bytes);
    };
  }
  const cudaError_t status = rt.enqueue(stream, std::move(work));
  if (status == cudaSuccess && pageable_target) {
    rt.streams.run_until_done(stream.last);
  }
  return status;
}

bool resolve(const Runtime& rt, cudaMemcpyKind kind, Copy& copy) {
  copy.from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  copy.to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) {
    copy.from_device = is_device(rt, copy.from);
    copy.to_device = is_device(rt, copy.to);
  }
  return kind >= cudaMemcpyHostToHost && kind <= cudaMemcpyDefault;
}

cudaError_t fill_async(Runtime& rt, Stream& stream, void* to, int value, std::size_t bytes) {
  if (!rt.memory.contains({to, bytes}, MemoryKind::kDevice) &&
      !rt.memory.contains({to, bytes}, MemoryKind::kPinned)) {
    rt.say("cudaMemset of " + std::to_string(bytes) + " bytes at " + rt.memory.describe(to));
    return cudaErrorInvalidValue;
  }
  return rt.enqueue(stream, {"a fill of " + std::to_string(bytes) + " bytes",
                             [=] {
                               const OpenMemory open;
                               std::memset(to, value, bytes);
                             },
                             {{to, bytes}}});
}

}  // namespace
}  // namespace nibble::cuda_host

using nibble::cuda_host::MemoryKind;
using nibble::cuda_host::Runtime;
using nibble::cuda_host::Stream;

extern "C" {

cudaError_t CUDARTAPI cudaMalloc(void** memory, size_t bytes) {
  return nibble::cuda_host::allocate(memory, bytes, MemoryKind::kDevice);
}

cudaError_t CUDARTAPI cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return nibble::cuda_host::allocate(memory, bytes, MemoryKind::kPinned);
}

cudaError_t CUDARTAPI cudaMallocHost(void** memory, size_t bytes) {
  return nibble::cuda_host::allocate(memory, bytes, MemoryKind::kPinned);
}

cudaError_t CUDARTAPI cudaFree(void* memory) {
  return nibble::cuda_host::release(memory, MemoryKind::kDevice, "cudaFree");
}

cudaError_t CUDARTAPI cudaFreeHost(void* memory) {
  return nibble::cuda_host::release(memory, MemoryKind::kPinned, "cudaFreeHost");
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                      cudaStream_t handle) {
  return nibble::cuda_host::call_on(handle, [&](Runtime& rt, Stream& stream) {
    nibble::cuda_host::Copy copy{to, from, bytes, false, false};
    if (!nibble::cuda_host::resolve(rt, kind, copy)) {
      return cudaErrorInvalidMemcpyDirection;
    }
    return nibble::cuda_host::copy_async(rt, stream, copy);
  });
}

cudaError_t CUDARTAPI cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return nibble::cuda_host::call_on(cudaStreamLegacy, [&](Runtime& rt, Stream& stream) {
    if (const cudaError_t refused = rt.streams.refuse_in_capture(); refused != cudaSuccess) {
      rt.say("cudaMemcpy is called during a capture");
      return refused;
    }
    nibble::cuda_host::Copy copy{to, from, bytes, false, false};
    if (!nibble::cuda_host::resolve(rt, kind, copy)) {
      return cudaErrorInvalidMemcpyDirection;
    }
    const cudaError_t status = nibble::cuda_host::copy_async(rt, stream, copy);
    if (status == cudaSuccess && !(copy.from_device && copy.to_device)) {
      rt.streams.run_until_done(stream.last);  // the host does not wait for copies on the device
    }
    return status;
  });
}

cudaError_t CUDARTAPI cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
  return nibble::cuda_host::call_on(handle, [&](Runtime& rt, Stream& stream) {
    return bytes != 0 ? nibble::cuda_host::fill_async(rt, stream, to, value, bytes) : cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, cudaStreamLegacy);
}

cudaError_t CUDARTAPI cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  return nibble::cuda_host::call([&](Runtime& rt) {
    const size_t limit = nibble::cuda_host::settings().memory;
    const size_t used = rt.memory.device_bytes();
    *total_bytes = limit;
    *free_bytes = limit > used ? limit - used : 0;
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                               const void* address) {
  return nibble::cuda_host::call([&](Runtime& rt) {
    *attributes = cudaPointerAttributes{};
    const nibble::cuda_host::Allocation* found = rt.memory.find(address);
    attributes->device = found != nullptr ? 0 : -1;
    if (found == nullptr) {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->hostPointer = nullptr;
      return cudaSuccess;
    }
    const bool device = found->kind == MemoryKind::kDevice;
    attributes->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    attributes->devicePointer = const_cast<void*>(address);
    attributes->hostPointer = device ? nullptr : const_cast<void*>(address);
    return cudaSuccess;
  });
}

}  // extern "C"
