// SPDX-License-Identifier: Apache-2.0
// Gradients that break quantisers, beside ordinary ones.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "math/maps/dynamic.h"
#include "support/golden_rng.h"

namespace nibble::test {

inline constexpr const char* kInputNames[] = {"normal",    "logscale", "zeros",   "signed zeros",
                                              "denormal",  "huge",     "outlier", "constant",
                                              "midpoints", "one"};

inline std::vector<float> make_input(const std::string& name, std::size_t n,
                                     std::uint64_t stream = 1) {
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float u = golden_uniform(7, stream, i);
    float x = u + golden_uniform(7, stream + 100, i);
    if (name == "logscale") {
      x = std::copysign(std::pow(10.0F, 10.0F * golden_uniform(7, stream + 200, i)), u);
    } else if (name == "zeros") {
      x = 0.0F;
    } else if (name == "signed zeros") {
      x = i % 3 == 0 ? u : (i % 3 == 1 ? 0.0F : -0.0F);
    } else if (name == "denormal") {
      x = u * 1e-41F;
    } else if (name == "huge") {
      x = u * 3e38F;
    } else if (name == "outlier") {
      x = i % 256 == 17 ? 1e4F : x * 1e-4F;
    } else if (name == "constant") {
      x = 0.125F;
    } else if (name == "midpoints") {  // exact ties, and one unit in the last place to each side
      const auto& map = i % 2 == 0 ? math::kDynamic8Signed : math::kDynamic8Unsigned;
      x = i % 32 == 0 ? 1.0F : map.bound[(i * 7 + stream) % 255];
      x = i % 3 == 1 ? std::nextafter(x, 2.0F) : (i % 3 == 2 ? std::nextafter(x, -2.0F) : x);
    } else if (name == "one") {
      x = i == n / 2 ? 1e-3F : 0.0F;
    }
    out[i] = x;
  }
  return out;
}

}  // namespace nibble::test
