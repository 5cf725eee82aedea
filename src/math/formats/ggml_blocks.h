// SPDX-License-Identifier: Apache-2.0
// The block formats of GGUF files: layout and the one definition of their decoding. Every backend's
// faster decoder gives the same bits (tests/model/dequant_test.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "math/bf16.h"
#include "math/fp16.h"
#include "math/host_device.h"

namespace nibble::math {

enum class GgmlType : std::uint32_t {
#define NIBBLE_GGML_TYPE(id, name, elements, bytes) k##name = (id),
#include "math/formats/ggml_types.def"
#undef NIBBLE_GGML_TYPE
};

struct GgmlTypeInfo {
  GgmlType type;
  const char* name;
  std::uint32_t block_elements;
  std::uint32_t block_bytes;
};

inline constexpr GgmlTypeInfo kGgmlTypes[] = {
#define NIBBLE_GGML_TYPE(id, name, elements, bytes) {GgmlType::k##name, #name, elements, bytes},
#include "math/formats/ggml_types.def"
#undef NIBBLE_GGML_TYPE
};

// nullptr if nibble does not read this type.
constexpr const GgmlTypeInfo* ggml_type_info(std::uint32_t id) {
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    if (static_cast<std::uint32_t>(info.type) == id) {
      return &info;
    }
  }
  return nullptr;
}
constexpr const GgmlTypeInfo& ggml_type_info(GgmlType type) {
  return *ggml_type_info(static_cast<std::uint32_t>(type));
}

template <class T>
NIBBLE_HD inline T load_unaligned(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The types whose blocks are one element: F32, F16, BF16.
NIBBLE_HD inline float decode_ggml_element(GgmlType type, const std::byte* element) {
  switch (type) {
    case GgmlType::kF16:
      return fp16_to_float(load_unaligned<fp16>(element));
    case GgmlType::kBF16:
      return bf16_to_float(load_unaligned<bf16>(element));
    default:
      return load_unaligned<float>(element);
  }
}

// Decodes one block. Products and sums are rounded separately (no fused multiply-add): that is what
// the gguf package computes, and these bits are the contract.
//   Q4_0: f16 d, 16 bytes; x = d (q - 8); element j is the low nibble of byte j, j + 16 the high
//   one. Q4_1: f16 d, f16 m, 16 bytes; x = d q + m; same nibble order. Q8_0: f16 d, 32 x int8; x =
//   d q.
NIBBLE_HD inline void decode_ggml_block(GgmlType type, const std::byte* block, float* out) {
  switch (type) {
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
      out[0] = decode_ggml_element(type, block);
      return;
    case GgmlType::kQ4_0: {
      const float d = fp16_to_float(load_unaligned<fp16>(block));
      for (int j = 0; j < 16; ++j) {
        const int byte = static_cast<int>(block[2 + j]);
        out[j] = d * static_cast<float>((byte & 15) - 8);
        out[j + 16] = d * static_cast<float>((byte >> 4) - 8);
      }
      return;
    }
    case GgmlType::kQ4_1: {
      const float d = fp16_to_float(load_unaligned<fp16>(block));
      const float m = fp16_to_float(load_unaligned<fp16>(block + 2));
      for (int j = 0; j < 16; ++j) {
        const int byte = static_cast<int>(block[4 + j]);
        out[j] = d * static_cast<float>(byte & 15) + m;
        out[j + 16] = d * static_cast<float>(byte >> 4) + m;
      }
      return;
    }
    case GgmlType::kQ8_0: {
      const float d = fp16_to_float(load_unaligned<fp16>(block));
      for (int j = 0; j < 32; ++j) {
        out[j] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + j]));
      }
      return;
    }
  }
}

}  // namespace nibble::math
