// SPDX-License-Identifier: Apache-2.0
// What a kernel that was compiled as host C++ calls: the running CUDA thread, and the operations at
// which it may have to wait for others. Implemented by worker.cc and its neighbours.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace nibble::cuda_host {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

class Worker;
class Fiber;

// A place in a kernel's source.
struct Site {
  const char* file = nullptr;
  int line = 0;

  static Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// A last parameter that is the place of the call.
#define NIBBLE_CUDA_HOST_SITE      \
  ::nibble::cuda_host::Site site = \
      ::nibble::cuda_host::Site::here(__builtin_FILE(), __builtin_LINE())

struct BlockPlace {
  uint3 index{};
  dim3 size;
  dim3 grid;
  unsigned threads = 0;
};

enum class ThreadState : std::uint8_t { kNew, kReady, kAtBarrier, kInWarp, kExited };

// A copy begun by cp_async16 and not yet waited for.
struct AsyncCopy {
  void* shared;
  const void* global;
  unsigned group;
};

struct Thread {
  uint3 index{};
  unsigned linear = 0;
  const BlockPlace* block = nullptr;
  Worker* worker = nullptr;
  Fiber* fiber = nullptr;  // null before it runs
  ThreadState state = ThreadState::kNew;
  int predicate = 0;  // of __syncthreads_count and the like
  Site site;          // where it waits, or waited last
  unsigned committed_groups = 0;
  std::vector<AsyncCopy> copies;
  std::size_t copies_taken = 0;
};

// The CUDA thread that this OS thread is executing.
extern constinit thread_local Thread* current __attribute__((tls_model("initial-exec")));

enum class Barrier : std::uint8_t { kPlain, kCount, kAnd, kOr };

// What __syncthreads and its kin return.
int wait_at_barrier(Barrier kind, int predicate, Site site);

// The order is that of the names in warp.cc.
enum class WarpOperation : std::uint8_t {
  kSync,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
};

// Waits for the lanes of `mask` and returns this lane's result. `source` is the lane from which a
// shuffle reads.
std::uint64_t warp_operation(WarpOperation kind, unsigned mask, std::uint64_t operand,
                             unsigned source, Site site);

// One `__shared__` array of the source; all blocks have their own memory for it.
struct SharedArray {
  const char* name;
  Site site;
  std::atomic<unsigned> slot{0};  // given at the first use
};

void* shared_array(SharedArray& array, std::size_t bytes, std::size_t alignment);
void* dynamic_shared(Site site);

void check_aligned(const void* address, std::size_t alignment, Site site);
void begin_async_copy(void* shared, const void* global, Site site);
void commit_async_copies();
// The next copy that must be done when at most `pending_groups` groups may be on their way. False
// if there is none.
bool take_async_copy(int pending_groups, AsyncCopy& copy);

void memory_fence();

// Ends the launch with an error at the running thread. (By value: what the abandoned thread owned
// would never be freed.)
[[noreturn]] void fault(std::string what, Site site);

// A kernel with its arguments, as one call for each thread.
struct Launch {
  std::string kernel;
  Site site;
  const void* function = nullptr;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic
  std::function<void()> body;
  std::vector<const void*> pointers;  // the arguments that are pointers
  std::size_t shared_limit = 0;       // static and dynamic; launch_kernel fills it in
};

cudaError_t launch_kernel(Launch launch, cudaStream_t stream);

}  // namespace nibble::cuda_host
