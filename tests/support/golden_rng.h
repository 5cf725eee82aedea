// SPDX-License-Identifier: Apache-2.0
// The portable generator with which the golden data was made (its README: "Portable RNG").
#pragma once

#include <cstdint>

namespace nibble::test {

inline std::uint64_t splitmix64(std::uint64_t x) {
  std::uint64_t z = x + 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// Element i of bits(seed, n, stream).
inline std::uint64_t golden_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  return splitmix64(splitmix64((seed << 20) + stream) + i);
}

// Element i of uniform(seed, n, stream): in [-1, 1), exact in float.
inline float golden_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  return static_cast<float>(static_cast<double>(golden_bits(seed, stream, i) >> 40) * 0x1p-23 - 1);
}

}  // namespace nibble::test
