// SPDX-License-Identifier: Apache-2.0
// Random bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011). Counter-based, so that element i of tensor t at step s has the same random bits on any
// device, for any number of threads and after any resume.
#pragma once

#include <array>
#include <cstdint>

namespace nibble::math {

// What the bits are for. Part of the counter and of every checkpoint: never renumber.
enum class RandomPurpose : std::uint32_t {
  kInit = 1,
  kDropout = 2,
  kShuffle = 3,
  kRounding = 4,
  kProjection = 5,
  kSampling = 6,  // generation
  kSplit = 7,     // which rows are held out
};

using Philox4 = std::array<std::uint32_t, 4>;

constexpr Philox4 philox4x32_10(Philox4 counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

// The stream of one tensor at one step for one purpose. The counter is {element / 4 (low 32 bits),
// tensor, step, purpose | element / 4 (high bits) << 8}; the lane is element % 4.
struct RandomStream {
  std::uint64_t seed;
  std::uint32_t tensor;
  std::uint32_t step;
  RandomPurpose purpose;

  constexpr std::uint32_t bits(std::uint64_t element) const {
    const std::uint64_t group = element / 4;
    const Philox4 out = philox4x32_10(
        {static_cast<std::uint32_t>(group), tensor, step,
         static_cast<std::uint32_t>(purpose) | (static_cast<std::uint32_t>(group >> 32) << 8)},
        static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
    return out[element % 4];
  }

  // In [0, 1), a multiple of 2^-24: exact in float.
  constexpr float uniform(std::uint64_t element) const {
    return static_cast<float>(bits(element) >> 8) * 0x1p-24F;
  }
};

// Tensor id from a name (FNV-1a, 32 bits): stable whatever the order of registration.
constexpr std::uint32_t tensor_id(const char* name) {
  std::uint32_t hash = 2166136261U;
  for (; *name != '\0'; ++name) {
    hash = (hash ^ static_cast<unsigned char>(*name)) * 16777619U;
  }
  return hash;
}

}  // namespace nibble::math
