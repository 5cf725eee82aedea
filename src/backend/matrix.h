// SPDX-License-Identifier: Apache-2.0
// Views of matrices: never own, row-major, `stride` elements from row to row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "math/bf16.h"
#include "math/formats/ggml_blocks.h"

namespace nibble::backend {

enum class DType : std::uint8_t { kF32, kBf16 };

constexpr std::int64_t dtype_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

template <class Void>
struct BasicMatrix {
  Void* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0, cols = 0, stride = 0;

  bool empty() const { return data == nullptr; }
  // Rows [r, r + nr), columns [c, c + nc).
  BasicMatrix block(std::int64_t r, std::int64_t c, std::int64_t nr, std::int64_t nc) const {
    return {offset(r * stride + c), dtype, nr, nc, stride};
  }
  BasicMatrix row_range(std::int64_t r, std::int64_t nr) const { return block(r, 0, nr, cols); }
  template <class T>
  auto row(std::int64_t r) const {
    if constexpr (std::is_const_v<Void>) {
      return static_cast<const T*>(data) + r * stride;
    } else {
      return static_cast<T*>(data) + r * stride;
    }
  }
  operator BasicMatrix<const void>() const  // NOLINT(google-explicit-constructor)
      requires(!std::is_const_v<Void>) {
    return {data, dtype, rows, cols, stride};
  }

 private:
  Void* offset(std::int64_t elements) const {
    using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
    return static_cast<Byte*>(data) + elements * dtype_bytes(dtype);
  }
};

using Matrix = BasicMatrix<void>;
using ConstMatrix = BasicMatrix<const void>;

// A weight matrix in its quantised bytes: `rows` outputs, `cols` inputs, blocks along a row.
struct QuantizedMatrix {
  math::GgmlType type = math::GgmlType::kF32;
  const std::byte* data = nullptr;
  std::int64_t rows = 0, cols = 0;

  std::int64_t row_bytes() const {
    const math::GgmlTypeInfo& info = math::ggml_type_info(type);
    return cols / info.block_elements * info.block_bytes;
  }
};

}  // namespace nibble::backend
