// SPDX-License-Identifier: Apache-2.0
// The functions of execution.h that need no more than the running thread.
#include "cuda_host/execution.h"

#include <utility>

#include "cuda_host/sanitizers.h"
#include "cuda_host/worker.h"

namespace nibble::cuda_host {

int wait_at_barrier(Barrier kind, int predicate, Site site) {
  return current->worker->wait_at_barrier(kind, predicate, site);
}

std::uint64_t warp_operation(WarpOperation kind, unsigned mask, std::uint64_t operand,
                             unsigned source, Site site) {
  return current->worker->warp_operation(kind, mask, operand, source, site);
}

void* shared_array(SharedArray& array, std::size_t bytes, std::size_t alignment) {
  SharedMemory& memory = current->worker->shared_memory();
  void* low = memory.array(array, bytes, alignment);
  if (low == nullptr) {
    fault("shared array '" + std::string(array.name) + "' brings the block to " +
              std::to_string(memory.used_bytes()) + " bytes of shared memory, over the limit",
          array.site);
  }
  return low;
}

void* dynamic_shared(Site site) {
  void* low = current->worker->shared_memory().dynamic();
  if (low == nullptr) {
    fault("the launch gave no dynamic shared memory", site);
  }
  return low;
}

void check_aligned(const void* address, std::size_t alignment, Site site) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) {
    fault("an address that is no multiple of " + std::to_string(alignment), site);
  }
}

void begin_async_copy(void* shared, const void* global, Site site) {
  check_aligned(shared, 16, site);
  check_aligned(global, 16, site);
  const sanitizers::Ignore ignore;
  current->copies.push_back({shared, global, current->committed_groups});
}

void commit_async_copies() { ++current->committed_groups; }

bool take_async_copy(int pending_groups, AsyncCopy& copy) {
  Thread& thread = *current;
  if (thread.copies_taken == thread.copies.size()) {
    thread.copies.clear();
    thread.copies_taken = 0;
    return false;
  }
  copy = thread.copies[thread.copies_taken];
  if (std::int64_t{copy.group} >= std::int64_t{thread.committed_groups} - pending_groups) {
    return false;
  }
  ++thread.copies_taken;
  return true;
}

void memory_fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

void fault(std::string what, Site site) { current->worker->fail_here(std::move(what), site); }

}  // namespace nibble::cuda_host
