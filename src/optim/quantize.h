// SPDX-License-Identifier: Apache-2.0
// Quantising whole tensors, in parallel.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "math/formats/formats.h"

namespace nibble::optim {

struct QuantizeSpec {
  int format = 0;  // index in math::kFormats; block-wise
  bool is_signed = true;
  math::Rounding rounding = math::Rounding::kSafe;
  std::int64_t block = 0;
};

// Throws Error for a format, mode or block that cannot be. Block 0 is the format's own.
QuantizeSpec make_quantize_spec(std::string_view format, const std::string& mode,
                                std::int64_t block, bool is_signed);

void quantize(const QuantizeSpec& spec, const float* src, std::int64_t count, std::uint8_t* codes,
              float* scales);
void dequantize(const QuantizeSpec& spec, const std::uint8_t* codes, const float* scales,
                std::int64_t count, float* dst);

// The values by code of a quantised format (16 of 4-bit ones; 0 behind them).
std::array<float, 256> map_values(int format, bool is_signed);

}  // namespace nibble::optim
