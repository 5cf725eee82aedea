// SPDX-License-Identifier: Apache-2.0
// The 8 elements of a thread: their bytes between memory and registers, and maxima over blocks.
#pragma once

#include <cstring>

#include "cuda/device.h"
#include "cuda/optim/plan.h"

namespace nibble::cuda {

// Where a thread's elements lie in their tensor.
struct Lane {
  std::int64_t begin;  // a multiple of 8
  int valid;           // 0 .. 8: how many there are
};

// Of the thread, in the `chunk`-th kChunk elements of `count`.
__device__ inline Lane lane_of(std::uint32_t chunk, std::int64_t count) {
  const std::int64_t begin =
      std::int64_t{chunk} * kChunk + static_cast<std::int64_t>(threadIdx.x) * kLane;
  const std::int64_t left = count - begin;
  return {begin, static_cast<int>(left < 0 ? 0 : (left < kLane ? left : kLane))};
}

// ---- Bytes -----------------------------------------------------------------------------------

template <class Word>
__device__ inline bool is_aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % sizeof(Word) == 0;
}

// kBytes bytes in words where all are there and aligned; else the first `valid` of them one by one
// and zeros behind.
template <class Word, int kBytes>
__device__ inline void load_words(const std::uint8_t* from, int valid, std::uint8_t* to) {
  if (valid == kBytes && is_aligned<Word>(from)) {
    NIBBLE_UNROLL
    for (int i = 0; i < kBytes; i += static_cast<int>(sizeof(Word))) {
      const Word word = load_streaming(reinterpret_cast<const Word*>(from + i));
      memcpy(to + i, &word, sizeof(Word));
    }
    return;
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kBytes; ++i) {
    to[i] = i < valid ? from[i] : std::uint8_t{0};
  }
}

template <class Word, int kBytes>
__device__ inline void store_words(std::uint8_t* to, int valid, const std::uint8_t* from) {
  if (valid == kBytes && is_aligned<Word>(to)) {
    NIBBLE_UNROLL
    for (int i = 0; i < kBytes; i += static_cast<int>(sizeof(Word))) {
      Word word;
      memcpy(&word, from + i, sizeof(Word));
      store_streaming(reinterpret_cast<Word*>(to + i), word);
    }
    return;
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kBytes; ++i) {
    if (i < valid) {
      to[i] = from[i];
    }
  }
}

template <int kBytes>
struct WordOf {
  using type = uint4;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};

// The bytes of the lane's 8 elements of `kBits` bits; `valid` elements of them.
template <int kBits>
__device__ inline int bytes_of(int valid) {
  return (valid * kBits + 7) / 8;
}
template <int kBits>
__device__ inline void load_bits(const std::uint8_t* from, int valid, std::uint8_t (&to)[kBits]) {
  load_words<typename WordOf<kBits>::type, kBits>(from, bytes_of<kBits>(valid), to);
}
template <int kBits>
__device__ inline void store_bits(std::uint8_t* to, int valid, const std::uint8_t (&from)[kBits]) {
  store_words<typename WordOf<kBits>::type, kBits>(to, bytes_of<kBits>(valid), from);
}

__device__ inline void load_floats(const void* data, Lane at, float* out) {
  std::uint8_t raw[4 * kLane];
  load_bits<32>(static_cast<const std::uint8_t*>(data) + 4 * at.begin, at.valid, raw);
  memcpy(out, raw, sizeof(raw));
}
__device__ inline void store_floats(void* data, Lane at, const float* x) {
  std::uint8_t raw[4 * kLane];
  memcpy(raw, x, sizeof(raw));
  store_bits<32>(static_cast<std::uint8_t*>(data) + 4 * at.begin, at.valid, raw);
}

__device__ inline void load_source(backend::Source source, Lane at, float* out) {
  if (!source.is_bf16) {
    load_floats(source.data, at, out);
    return;
  }
  std::uint8_t raw[2 * kLane];
  load_bits<16>(static_cast<const std::uint8_t*>(source.data) + 2 * at.begin, at.valid, raw);
  math::Bf16::decode(false, raw, nullptr, kLane, out);
}

// ---- Maxima ----------------------------------------------------------------------------------

// The largest of `mine` among the threads of one quantisation block. Every thread of the thread
// block takes part; `scratch` has a float for each warp.
__device__ inline float block_max(float mine, std::int64_t block, float* scratch) {
  constexpr int kWarpElements = 32 * kLane;
  const int lanes = static_cast<int>(block < kWarpElements ? block / kLane : 32);
  for (int d = lanes / 2; d > 0; d /= 2) {
    mine = fmaxf(mine, __shfl_xor_sync(0xffffffffU, mine, d));
  }
  if (block <= kWarpElements) {
    __syncwarp();  // all have read what one of them may now write: shuffles order no memory
    return mine;
  }
  const int warps = static_cast<int>(block / kWarpElements);  // of one quantisation block
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) {
    scratch[warp] = mine;
  }
  __syncthreads();
  for (int i = 0; i < warps; ++i) {
    mine = fmaxf(mine, scratch[warp / warps * warps + i]);
  }
  __syncthreads();  // the next call writes there again
  return mine;
}

// A thread's part of it: elements that are not there count as 0.
__device__ inline float lane_absmax(const float* x, int valid) {
  float there[kLane];
  NIBBLE_UNROLL
  for (int i = 0; i < kLane; ++i) {
    there[i] = i < valid ? x[i] : 0.0F;
  }
  return math::block_absmax(there, kLane);
}

}  // namespace nibble::cuda
