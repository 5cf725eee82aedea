// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/runtime.h"

#include <utility>

#include "cuda_host/control.h"
#include "cuda_host/fault_report.h"
#include "cuda_host/grid.h"
#include "cuda_host/text.h"

namespace nibble::cuda_host {
namespace {

thread_local cudaError_t thread_error = cudaSuccess;
thread_local bool inside_host_function = false;

constexpr std::size_t kDefaultShared = 48 << 10;

std::string name_of(const Launch& launch) {
  return launch.kernel + " (launched at " + text(launch.site) + ")";
}

// What makes a GPU refuse the launch, or nothing.
std::string wrong_shape(const Launch& launch) {
  const dim3& grid = launch.grid;
  const dim3& block = launch.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFU || grid.y > 65535 ||
      grid.z > 65535) {
    return "grid " + text(grid) + " is not within (1,1,1) and (2147483647,65535,65535)";
  }
  const std::uint64_t plane = std::uint64_t{block.x} * block.y;
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > 1024 || block.y > 1024 ||
      block.z > 64 || plane * block.z > 1024) {
    return "block " + text(block) + " is empty or has more than 1024 threads (64 in z)";
  }
  return {};
}

// What makes the kernel touch memory that is not the device's, or nothing.
std::string wrong_pointer(const Runtime& rt, const Launch& launch) {
  for (std::size_t i = 0; i < launch.pointers.size(); ++i) {
    const void* pointer = launch.pointers[i];
    if (pointer != nullptr && rt.memory.find(pointer) == nullptr) {
      return "pointer argument " + std::to_string(i + 1) + " of " +
             std::to_string(launch.pointers.size()) +
             " is neither device nor pinned memory (a host pointer, or freed): " +
             rt.memory.describe(pointer);
    }
  }
  return {};
}

void run_kernel(const Launch& launch) {
  Runtime& rt = runtime();
  if (const std::string why = wrong_pointer(rt, launch); !why.empty()) {
    rt.fail(cudaErrorIllegalAddress, name_of(launch) + ": when it ran, " + why);
    return;
  }
  const OpenMemory open;
  const std::string error = run_grid(launch, settings());
  if (!error.empty()) {
    rt.fail(cudaErrorLaunchFailure, name_of(launch) + ", " + error);
  } else if (const Allocation* overrun = rt.memory.find_overrun()) {
    rt.fail(cudaErrorIllegalAddress, name_of(launch) + ": it wrote past the end of a device or " +
                                         "pinned allocation of " + std::to_string(overrun->bytes) +
                                         " bytes");
  }
}

}  // namespace

Runtime& runtime() {
  static auto* rt = new Runtime;  // never destroyed: destructors at exit may still free memory
  return *rt;
}

cudaError_t& last_error() { return thread_error; }

bool in_host_function() { return inside_host_function; }

void run_host_function(cudaHostFn_t function, void* data) {
  inside_host_function = true;
  function(data);
  inside_host_function = false;
}

void Runtime::say(const std::string& what) {
  if (message.empty()) {
    message = what;
  }
}

cudaError_t Runtime::fail(cudaError_t error, const std::string& what) {
  say(what);
  if (sticky == cudaSuccess) {
    sticky = error;
  }
  return error;
}

Event* Runtime::find(cudaEvent_t handle) {
  for (const std::unique_ptr<Event>& event : events) {
    if (reinterpret_cast<cudaEvent_t>(event.get()) == handle) {
      return event.get();
    }
  }
  return nullptr;
}

std::uint64_t Runtime::draw_seed() {
  static std::uint64_t count = 0;
  return settings().seed * 1000003 + ++count;
}

void Runtime::after_enqueue() {
  if (settings().streams == Streams::kSync) {
    streams.run_all();
  }
}

cudaError_t Runtime::enqueue(Stream& stream, Work work) {
  if (settings().seed != seed) {
    seed = settings().seed;
    streams.set_seed(seed);
  }
  // After a sticky error what is queued never runs.
  auto run = [body = std::move(work.run)] {
    if (runtime().sticky == cudaSuccess) {
      body();
    }
  };
  work.run = std::move(run);
  const cudaError_t status = streams.enqueue(stream, std::move(work));
  if (status == cudaSuccess) {
    after_enqueue();
  }
  return status;
}

cudaError_t launch_kernel(Launch launch, cudaStream_t handle) {
  if (launch.kernel.size() > 2 && launch.kernel.front() == '(' && launch.kernel.back() == ')') {
    launch.kernel = launch.kernel.substr(1, launch.kernel.size() - 2);
  }
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    if (const std::string why = wrong_shape(launch); !why.empty()) {
      rt.say(name_of(launch) + ": " + why);
      return cudaErrorInvalidConfiguration;
    }
    const auto limit = rt.shared_limits.find(launch.function);
    const bool raised = limit != rt.shared_limits.end() && limit->second > kDefaultShared;
    launch.shared_limit = raised ? limit->second : kDefaultShared;
    if (launch.shared_bytes > launch.shared_limit) {
      rt.say(name_of(launch) + ": " + std::to_string(launch.shared_bytes) +
             " bytes of dynamic shared memory are over the limit of " +
             std::to_string(launch.shared_limit) + " (see cudaFuncSetAttribute)");
      return cudaErrorInvalidValue;
    }
    if (const std::string why = wrong_pointer(rt, launch); !why.empty()) {
      return rt.fail(cudaErrorIllegalAddress, name_of(launch) + ": " + why);
    }
    Work work{name_of(launch), {}, {}};
    for (const void* pointer : launch.pointers) {
      work.uses.push_back({pointer, 1});
    }
    work.run = [launch = std::move(launch)] { run_kernel(launch); };
    return rt.enqueue(stream, std::move(work));
  });
}

}  // namespace nibble::cuda_host
