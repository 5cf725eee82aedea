// SPDX-License-Identifier: Apache-2.0
// The vectorised decoder against the one definition (math::decode_ggml_block), bit for bit, and the
// definition against the formulas in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/model/simd_ops.h"
#include "support/tiny_model.h"

namespace nibble::test {
namespace {

using backend::DType;
using backend::QuantizedMatrix;
using math::GgmlTypeInfo;

// Scales that a random byte pair seldom makes: zeros, subnormals, the largest, negatives.
constexpr std::uint16_t kScales[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x03ff, 0x0400,
                                     0x7bff, 0xfbff, 0xbc00, 0x3c00, 0x2e66, 0x1155};

// Random bytes; f16 scales (and F16/F32/BF16 values) stay finite: NaNs have no one bit pattern.
std::vector<std::byte> random_bytes(const GgmlTypeInfo& info, std::int64_t blocks) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(blocks * info.block_bytes));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(golden_bits(21, info.block_bytes, i) >> 33);
  }
  const int scales = info.block_elements == 1 ? 0 : info.type == GgmlType::kQ4_1 ? 2 : 1;
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::byte* block = &bytes[static_cast<std::size_t>(b * info.block_bytes)];
    for (int s = 0; s < scales; ++s) {
      std::uint16_t bits;
      std::memcpy(&bits, block + 2 * s, 2);
      if (b % 3 == 0) {
        bits = kScales[static_cast<std::size_t>(b / 3 + 5 * s) % std::size(kScales)];
      }
      bits = (bits & 0x7c00) == 0x7c00 ? bits ^ 0x4000 : bits;
      std::memcpy(block + 2 * s, &bits, 2);
    }
    if (scales == 0) {
      std::byte& top = block[info.block_bytes - 1];  // clear an exponent bit: finite
      top &= static_cast<std::byte>(0xbf);
    }
  }
  return bytes;
}

// bf16, to nearest even, in arithmetic of the tests' own (finite values only).
std::uint16_t nearest_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rest = bits & 0xffffU, up = bits >> 16;
  const bool raise = rest > 0x8000U || (rest == 0x8000U && (up & 1U) != 0);
  return static_cast<std::uint16_t>(up + (raise ? 1 : 0));
}

template <class T>
void compare_slices(const GgmlTypeInfo& info, DType dtype) {
  constexpr std::int64_t kRows = 9, kBlocks = 13;
  const std::vector<std::byte> bytes = random_bytes(info, kRows * kBlocks);
  const std::int64_t elements = info.block_elements;
  const QuantizedMatrix weight{info.type, bytes.data(), kRows, kBlocks * elements};
  std::vector<float> want(static_cast<std::size_t>(kRows * kBlocks * elements));
  for (std::int64_t b = 0; b < kRows * kBlocks; ++b) {
    math::decode_ggml_block(info.type, &bytes[static_cast<std::size_t>(b * info.block_bytes)],
                            &want[static_cast<std::size_t>(b * elements)]);
  }
  const std::int64_t slices[][4] = {{0, kRows, 0, kBlocks}, {3, 1, 5, 1}, {8, 1, 12, 1},
                                    {1, 7, 2, 9},           {0, 0, 0, 4}, {2, 3, 4, 0}};
  for (const auto& [row, rows, block, blocks] : slices) {
    const std::int64_t cols = blocks * elements, stride = cols + 5;
    // What lies between the rows must stay as it is.
    std::vector<T> out(static_cast<std::size_t>(rows * stride) + 64, T{77});
    std::vector<T> expected = out;
    cpu::decode_tile(weight, row, rows, block, blocks, dtype, out.data(), stride);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const float value =
            want[static_cast<std::size_t>((row + i) * kBlocks * elements + block * elements + j)];
        T& to = expected[static_cast<std::size_t>(i * stride + j)];
        if constexpr (sizeof(T) == 4) {
          to = value;
        } else {
          to = nearest_bf16(value);
        }
      }
    }
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(T)), 0)
        << info.name << " rows " << row << "+" << rows << " blocks " << block << "+" << blocks;
  }
}

TEST(Dequant, TilesHaveTheBitsOfTheDefinition) {
  for (const GgmlTypeInfo& info : math::kGgmlTypes) {
    compare_slices<float>(info, DType::kF32);
    compare_slices<std::uint16_t>(info, DType::kBf16);
  }
}

// What ggml's blocks say, in double, from the bytes.
double by_formula(GgmlType type, const std::byte* block, int j) {
  const auto u8 = [&](int at) { return static_cast<int>(block[at]); };
  const auto half = [&](int at) {
    return half_value(static_cast<std::uint16_t>(u8(at) + 256 * u8(at + 1)));
  };
  const auto nibble = [&](int from) { return j < 16 ? u8(from + j) % 16 : u8(from + j - 16) / 16; };
  switch (type) {
    case GgmlType::kQ4_0:
      return half(0) * (nibble(2) - 8);
    case GgmlType::kQ4_1:
      return half(0) * nibble(4) + half(2);
    case GgmlType::kQ8_0:
      return half(0) * (u8(2 + j) < 128 ? u8(2 + j) : u8(2 + j) - 256);
    case GgmlType::kF16:
      return half(0);
    case GgmlType::kBF16:
    case GgmlType::kF32: {
      std::uint32_t bits = 0;
      std::memcpy(reinterpret_cast<std::byte*>(&bits) + (type == GgmlType::kF32 ? 0 : 2), block,
                  type == GgmlType::kF32 ? 4 : 2);
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return static_cast<double>(value);
    }
  }
  return NAN;
}

TEST(Dequant, DefinitionIsTheFormula) {
  for (const GgmlTypeInfo& info : math::kGgmlTypes) {
    const std::vector<std::byte> bytes = random_bytes(info, 200);
    for (std::size_t at = 0; at < bytes.size(); at += info.block_bytes) {
      float got[32];
      math::decode_ggml_block(info.type, &bytes[at], got);
      for (int j = 0; j < static_cast<int>(info.block_elements); ++j) {
        const auto want = static_cast<float>(by_formula(info.type, &bytes[at], j));
        ASSERT_EQ(got[j], want) << info.name << " byte " << at << " element " << j;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::test
