// SPDX-License-Identifier: Apache-2.0
// The runtime's functions for the device, errors and kernels' attributes, with NVIDIA's prototypes.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "cuda_host/control.h"
#include "cuda_host/runtime.h"

namespace nibble::cuda_host {
namespace {

// A small consumer's card.
constexpr int kMajor = 8;
constexpr int kMinor = 6;
constexpr int kMultiprocessors = 4;
constexpr int kSharedBytes = 48 << 10;
constexpr int kMostSharedBytes = 99 << 10;  // with cudaFuncSetAttribute
constexpr int kL2Bytes = 4 << 20;

struct Attribute {
  cudaDeviceAttr attribute;
  int value;
};

constexpr Attribute kAttributes[] = {
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxBlockDimX, 1024},
    {cudaDevAttrMaxBlockDimY, 1024},
    {cudaDevAttrMaxBlockDimZ, 64},
    {cudaDevAttrMaxGridDimX, 0x7FFFFFFF},
    {cudaDevAttrMaxGridDimY, 65535},
    {cudaDevAttrMaxGridDimZ, 65535},
    {cudaDevAttrMaxSharedMemoryPerBlock, kSharedBytes},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, kMostSharedBytes},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 100 << 10},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 1536},
    {cudaDevAttrMaxRegistersPerBlock, 65536},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMultiProcessorCount, kMultiprocessors},
    {cudaDevAttrL2CacheSize, kL2Bytes},
    {cudaDevAttrComputeCapabilityMajor, kMajor},
    {cudaDevAttrComputeCapabilityMinor, kMinor},
    {cudaDevAttrAsyncEngineCount, 2},
    {cudaDevAttrConcurrentKernels, 1},
    {cudaDevAttrUnifiedAddressing, 1},
    {cudaDevAttrCanMapHostMemory, 1},
    {cudaDevAttrManagedMemory, 0},
    {cudaDevAttrPageableMemoryAccess, 0},
    {cudaDevAttrIntegrated, 0},
    {cudaDevAttrClockRate, 1'000'000},
    {cudaDevAttrMemoryClockRate, 1'000'000},
    {cudaDevAttrGlobalMemoryBusWidth, 128},
};

struct ErrorName {
  cudaError_t error;
  const char* name;
  const char* text;
};

#define NIBBLE_CUDA_HOST_ERROR(name, text) \
  { name, #name, text }
constexpr ErrorName kErrors[] = {
    NIBBLE_CUDA_HOST_ERROR(cudaSuccess, "no error"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorInvalidValue, "invalid argument"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorIllegalState, "the operation cannot be performed now"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorNotReady, "device not ready"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorNotPermitted, "operation not permitted"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorNotSupported, "operation not supported"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureUnsupported,
                           "operation not permitted when stream is capturing"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureInvalidated,
                           "operation failed due to a previous error during capture"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureMerge,
                           "operation would result in a merge of separate capture sequences"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureUnmatched,
                           "capture was not ended in the same "
                           "stream as it began"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureIsolation,
                           "dependency created on uncaptured work in another stream"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureImplicit,
                           "operation would make the legacy stream depend on a capturing "
                           "blocking stream"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorCapturedEvent,
                           "operation not permitted on an event last recorded in a capturing "
                           "stream"),
    NIBBLE_CUDA_HOST_ERROR(cudaErrorStreamCaptureWrongThread,
                           "attempt to terminate a thread-local capture sequence from another "
                           "thread"),
};
#undef NIBBLE_CUDA_HOST_ERROR

const ErrorName* find_error(cudaError_t error) {
  const auto* found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                   [&](const ErrorName& row) { return row.error == error; });
  return found != std::end(kErrors) ? found : nullptr;
}

void describe_device(cudaDeviceProp& device) {
  std::memset(&device, 0, sizeof device);
  std::strncpy(device.name, "nibble CUDA stand-in", sizeof device.name - 1);
  device.totalGlobalMem = settings().memory;
  device.sharedMemPerBlock = kSharedBytes;
  device.sharedMemPerBlockOptin = kMostSharedBytes;
  device.sharedMemPerMultiprocessor = 100 << 10;
  device.regsPerBlock = 65536;
  device.warpSize = 32;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsDim[0] = device.maxThreadsDim[1] = 1024;
  device.maxThreadsDim[2] = 64;
  device.maxGridSize[0] = 0x7FFFFFFF;
  device.maxGridSize[1] = device.maxGridSize[2] = 65535;
  device.maxThreadsPerMultiProcessor = 1536;
  device.multiProcessorCount = kMultiprocessors;
  device.major = kMajor;
  device.minor = kMinor;
  device.l2CacheSize = kL2Bytes;
  device.memoryBusWidth = 128;
  device.asyncEngineCount = 2;
  device.concurrentKernels = 1;
  device.unifiedAddressing = 1;
  device.canMapHostMemory = 1;
}

}  // namespace
}  // namespace nibble::cuda_host

using nibble::cuda_host::call;
using nibble::cuda_host::last_error;
using nibble::cuda_host::Runtime;
using nibble::cuda_host::runtime;

extern "C" {

cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaSetDevice(int device) {
  return call([&](Runtime&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call([&](Runtime&) {
    if (device != 0) {
      return cudaErrorInvalidDevice;
    }
    nibble::cuda_host::describe_device(*properties);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call([&](Runtime&) {
    if (device != 0) {
      return cudaErrorInvalidDevice;
    }
    for (const auto& row : nibble::cuda_host::kAttributes) {
      if (row.attribute == attribute) {
        *value = row.value;
        return cudaSuccess;
      }
    }
    return cudaErrorInvalidValue;
  });
}

cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                           int value) {
  return call([&](Runtime& rt) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      return cudaSuccess;  // a hint
    }
    if (value < 0 || value > nibble::cuda_host::kMostSharedBytes) {
      return cudaErrorInvalidValue;
    }
    rt.shared_limits[kernel] = static_cast<size_t>(value);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaGetLastError() {
  const std::lock_guard lock(runtime().mutex);
  const cudaError_t sticky = runtime().sticky;
  const cudaError_t result = sticky != cudaSuccess ? sticky : last_error();
  last_error() = sticky;
  return result;
}

cudaError_t CUDARTAPI cudaPeekAtLastError() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().sticky != cudaSuccess ? runtime().sticky : last_error();
}

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  const auto* found = nibble::cuda_host::find_error(error);
  return found != nullptr ? found->name : "unrecognized error code";
}

const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  const auto* found = nibble::cuda_host::find_error(error);
  return found != nullptr ? found->text : "unrecognized error code";
}

}  // extern "C"
