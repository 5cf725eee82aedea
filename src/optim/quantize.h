// SPDX-License-Identifier: Apache-2.0
// Quantising whole tensors, in parallel.
#pragma once

#include <cstdint>
#include <string_view>

#include "math/formats/formats.h"

namespace nibble::optim {

struct QuantizeSpec {
  int format = 0;  // index in math::kFormats; block-wise
  bool is_signed = true;
  math::Rounding rounding = math::Rounding::kSafe;
  std::int64_t block = math::kDefaultBlock;
};

// Throws Error for a format, mode or block that cannot be.
QuantizeSpec make_quantize_spec(std::string_view format, std::string_view mode, std::int64_t block,
                                bool is_signed);
void check_block(std::int64_t block);

void quantize(const QuantizeSpec& spec, const float* src, std::int64_t count, std::uint8_t* codes,
              float* absmax);
void dequantize(const QuantizeSpec& spec, const std::uint8_t* codes, const float* absmax,
                std::int64_t count, float* dst);

}  // namespace nibble::optim
