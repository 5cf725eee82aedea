// SPDX-License-Identifier: Apache-2.0
// Warp functions of CUDA. Part of device.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda_host/execution.h"

namespace nibble::cuda_host {

template <class T>
inline std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 4 and 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
inline T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int lane_of_current() { return static_cast<int>(current->linear % kWarpSize); }

inline void check_width(int width, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fault("shuffle width " + std::to_string(width) + " is not a power of two up to 32", site);
  }
}

// `source` is where the lane reads; outside its section of `width` lanes it keeps its own value.
template <class T>
inline T shuffle(WarpOperation kind, unsigned mask, T value, int source, int width, Site site) {
  check_width(width, site);
  const int lane = lane_of_current();
  const int section = lane & ~(width - 1);
  const bool inside = kind == WarpOperation::kShuffleXor
                          ? source < section + width  // a lower section may be read
                          : source >= section && source < section + width;
  const auto from = static_cast<unsigned>(inside ? source : lane);
  return from_bits<T>(warp_operation(kind, mask, to_bits(value), from, site));
}

inline unsigned reduce(WarpOperation kind, unsigned mask, unsigned value, Site site) {
  return static_cast<unsigned>(warp_operation(kind, mask, value, 0, site));
}

}  // namespace nibble::cuda_host

inline void __syncwarp(unsigned mask = nibble::cuda_host::kAllLanes, NIBBLE_CUDA_HOST_SITE) {
  nibble::cuda_host::warp_operation(nibble::cuda_host::WarpOperation::kSync, mask, 0, 0, site);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, NIBBLE_CUDA_HOST_SITE) {
  const int section = nibble::cuda_host::lane_of_current() & ~(width - 1);
  return nibble::cuda_host::shuffle(nibble::cuda_host::WarpOperation::kShuffle, mask, value,
                                    section | (source & (width - 1)), width, site);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::shuffle(nibble::cuda_host::WarpOperation::kShuffleUp, mask, value,
                                    nibble::cuda_host::lane_of_current() - static_cast<int>(delta),
                                    width, site);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::shuffle(nibble::cuda_host::WarpOperation::kShuffleDown, mask, value,
                                    nibble::cuda_host::lane_of_current() + static_cast<int>(delta),
                                    width, site);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::shuffle(nibble::cuda_host::WarpOperation::kShuffleXor, mask, value,
                                    nibble::cuda_host::lane_of_current() ^ lanes, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kBallot, mask,
                                   predicate != 0 ? 1 : 0, site);
}

inline int __any_sync(unsigned mask, int predicate, NIBBLE_CUDA_HOST_SITE) {
  return static_cast<int>(nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kAny, mask,
                                                    predicate != 0 ? 1 : 0, site));
}

inline int __all_sync(unsigned mask, int predicate, NIBBLE_CUDA_HOST_SITE) {
  return static_cast<int>(nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kAll, mask,
                                                    predicate != 0 ? 1 : 0, site));
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kReduceAdd, mask, value, site);
}

inline unsigned __reduce_min_sync(unsigned mask, unsigned value, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kReduceMin, mask, value, site);
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value, NIBBLE_CUDA_HOST_SITE) {
  return nibble::cuda_host::reduce(nibble::cuda_host::WarpOperation::kReduceMax, mask, value, site);
}

// Which lanes happen to run together is nothing a program may rely on.
inline unsigned __activemask(NIBBLE_CUDA_HOST_SITE) {
  nibble::cuda_host::fault("__activemask(): pass the mask that the source means", site);
}
