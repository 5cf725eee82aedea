// SPDX-License-Identifier: Apache-2.0
// The state behind the runtime's functions, and what they share.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_host/memory.h"
#include "cuda_host/streams.h"

namespace nibble::cuda_host {

struct Runtime {
  std::recursive_mutex mutex;
  Memory memory;
  StreamSet streams;
  std::vector<std::unique_ptr<Event>> events;
  std::map<const void*, std::size_t> shared_limits;  // of kernels, by cudaFuncSetAttribute
  cudaError_t sticky = cudaSuccess;                  // after it nothing works, until reset()
  std::string message;
  std::uint64_t seed = 0;  // the settings' at the last call

  // Keeps what is said first: later messages are mostly its consequences.
  void say(const std::string& what);
  // For errors that a GPU does not recover from.
  cudaError_t fail(cudaError_t error, const std::string& what);
  Event* find(cudaEvent_t handle);
  std::uint64_t draw_seed();

  // Runs what may run now, by Settings::streams.
  void after_enqueue();
  cudaError_t enqueue(Stream& stream, Work work);
};

Runtime& runtime();

// Of the calling thread, as cudaGetLastError reports it.
cudaError_t& last_error();

bool in_host_function();
void run_host_function(cudaHostFn_t function, void* data);

// Makes device memory accessible while it lives.
class OpenMemory {
 public:
  OpenMemory() { runtime().memory.open(); }
  ~OpenMemory() { runtime().memory.close(); }
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;
};

// The frame of every function of the runtime: one at a time, nothing after a sticky error, nothing
// from host functions, and the result is remembered for cudaGetLastError.
template <class Body>
cudaError_t call(Body body) {
  const std::lock_guard lock(runtime().mutex);
  if (in_host_function()) {
    runtime().say("a function given to cudaLaunchHostFunc calls the CUDA runtime");
    return last_error() = cudaErrorNotPermitted;
  }
  cudaError_t result = runtime().sticky;
  if (result == cudaSuccess) {
    result = body(runtime());
  }
  if (result == cudaSuccess) {
    result = runtime().sticky;  // what ran meanwhile may have failed
  }
  if (result != cudaSuccess) {
    last_error() = result;
  }
  return result;
}

// As call, for a function that needs a stream.
template <class Body>
cudaError_t call_on(cudaStream_t handle, Body body) {
  return call([&](Runtime& rt) {
    Stream* stream = rt.streams.find(handle);
    return stream != nullptr ? body(rt, *stream) : cudaErrorInvalidResourceHandle;
  });
}

}  // namespace nibble::cuda_host
