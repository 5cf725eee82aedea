// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/warp.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cuda_host/text.h"

namespace nibble::cuda_host {
namespace {

const char* name_of(WarpOperation kind) {
  static constexpr const char* kNames[] = {
      "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",
      "__shfl_xor_sync",   "__ballot_sync",     "__any_sync",        "__all_sync",
      "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
  };
  return kNames[static_cast<unsigned>(kind)];
}

bool is_shuffle(WarpOperation kind) {
  return kind == WarpOperation::kShuffle || kind == WarpOperation::kShuffleUp ||
         kind == WarpOperation::kShuffleDown || kind == WarpOperation::kShuffleXor;
}

}  // namespace

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

void Warp::begin_block(unsigned lanes) {
  alive_ = lanes >= kWarpSize ? kAllLanes : (1U << lanes) - 1;
  groups_in_use_ = 0;
}

WarpGroup& Warp::group(unsigned mask) {
  for (unsigned i = 0; i < groups_in_use_; ++i) {
    if (groups_[i].mask == mask) {
      return groups_[i];
    }
  }
  WarpGroup& fresh = groups_[groups_in_use_++];  // at most one for each lane
  fresh = WarpGroup{};
  fresh.mask = mask;
  return fresh;
}

// __syncwarp may be met at several places; a value can be exchanged at one place only.
std::string Warp::mismatch(const WarpGroup& group, WarpOperation kind, Site site) {
  const bool same =
      group.kind == kind && (kind == WarpOperation::kSync || same_site(group.site, site));
  if (same) {
    return {};
  }
  return std::string(name_of(kind)) + " meets lanes " + hex(group.arrived) + " waiting in " +
         name_of(group.kind) + " at " + text(group.site);
}

WarpGroup* Warp::find_complete() {
  for (unsigned i = 0; i < groups_in_use_; ++i) {
    if (complete(groups_[i])) {
      return &groups_[i];
    }
  }
  return nullptr;
}

std::string Warp::finish(WarpGroup& group) {
  std::string error;
  if (is_shuffle(group.kind)) {
    error = finish_shuffle(group);
  } else if (group.kind != WarpOperation::kSync) {
    const std::uint64_t value = reduction(group);
    for (unsigned lanes = group.arrived; lanes != 0; lanes &= lanes - 1) {
      result_[static_cast<unsigned>(std::countr_zero(lanes))] = value;
    }
  }
  group = groups_[--groups_in_use_];
  return error;
}

std::string Warp::finish_shuffle(const WarpGroup& group) {
  for (unsigned lanes = group.arrived; lanes != 0; lanes &= lanes - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(lanes));
    const unsigned source = source_[lane];
    if ((group.arrived >> source & 1) == 0) {
      return std::string(name_of(group.kind)) + " at " + text(group.site) + ": lane " +
             std::to_string(lane) + " reads lane " + std::to_string(source) +
             ", which takes no part (mask " + hex(group.mask) + ", lanes there " +
             hex(group.arrived) + ")";
    }
    result_[lane] = operand_[source];
  }
  return {};
}

std::uint64_t Warp::reduction(const WarpGroup& group) const {
  unsigned sum = 0;
  unsigned least = 0xFFFFFFFFU;
  unsigned greatest = 0;
  unsigned ballot = 0;
  for (unsigned lanes = group.arrived; lanes != 0; lanes &= lanes - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(lanes));
    const auto value = static_cast<unsigned>(operand_[lane]);
    sum += value;
    least = std::min(least, value);
    greatest = std::max(greatest, value);
    ballot |= (value != 0 ? 1U : 0U) << lane;
  }
  switch (group.kind) {
    case WarpOperation::kBallot:
      return ballot;
    case WarpOperation::kAny:
      return ballot != 0 ? 1 : 0;
    case WarpOperation::kAll:
      return ballot == group.arrived ? 1 : 0;
    case WarpOperation::kReduceAdd:
      return sum;
    case WarpOperation::kReduceMin:
      return least;
    default:
      return greatest;
  }
}

std::string Warp::describe_wait(unsigned lane) const {
  for (unsigned i = 0; i < groups_in_use_; ++i) {
    const WarpGroup& group = groups_[i];
    if ((group.arrived >> lane & 1) != 0) {
      return std::string("waits in ") + name_of(group.kind) + " at " + text(group.site) +
             " with mask " + hex(group.mask) + " for lanes " +
             hex(group.mask & alive_ & ~group.arrived);
    }
  }
  return "waits for its warp";
}

}  // namespace nibble::cuda_host
