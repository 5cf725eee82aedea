// SPDX-License-Identifier: Apache-2.0
// The warp operations that lanes of one warp are waiting in, and their results.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "cuda_host/execution.h"

namespace nibble::cuda_host {

// Lanes that named the same mask. Disjoint or nested masks may be under way at the same time.
struct WarpGroup {
  unsigned mask = 0;
  unsigned arrived = 0;
  WarpOperation kind = WarpOperation::kSync;
  Site site;
  void* order = nullptr;  // ThreadSanitizer's object, if the operation orders memory
};

// Whether two places are one line of the source; the file's name may exist once in each object.
bool same_site(const Site& a, const Site& b);

class Warp {
 public:
  void begin_block(unsigned lanes);
  void lane_exits(unsigned lane) { alive_ &= ~(1U << lane); }

  // The group with this mask, which is a new one (arrived == 0) if no lane waits in it.
  WarpGroup& group(unsigned mask);
  // Why the lanes of the group cannot be doing this together; empty if they can.
  static std::string mismatch(const WarpGroup& group, WarpOperation kind, Site site);
  void deposit(unsigned lane, std::uint64_t operand, unsigned source) {
    operand_[lane] = operand;
    source_[lane] = static_cast<std::uint8_t>(source);
  }
  // Whether all lanes of the mask that have not exited are there.
  bool complete(const WarpGroup& group) const { return (group.mask & alive_) == group.arrived; }
  // A complete group after lanes exited, or null.
  WarpGroup* find_complete();
  // Computes every lane's result and removes the group. Returns an error, or nothing.
  std::string finish(WarpGroup& group);
  std::uint64_t result(unsigned lane) const { return result_[lane]; }
  // The operation in which a lane waits, with the lanes that have not come.
  std::string describe_wait(unsigned lane) const;

 private:
  std::string finish_shuffle(const WarpGroup& group);
  std::uint64_t reduction(const WarpGroup& group) const;

  unsigned alive_ = 0;
  unsigned groups_in_use_ = 0;
  std::array<WarpGroup, kWarpSize> groups_{};
  std::array<std::uint64_t, kWarpSize> operand_{};
  std::array<std::uint64_t, kWarpSize> result_{};
  std::array<std::uint8_t, kWarpSize> source_{};
};

}  // namespace nibble::cuda_host
