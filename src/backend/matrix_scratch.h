// SPDX-License-Identifier: Apache-2.0
// The scratch of rules that work on a whole matrix (RuleKind::kFactored, kOrthogonal): the same
// layout, and the same pieces of sums, for every backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/backend.h"

namespace nibble::backend {

// Rows of a partial sum of columns have about this many elements. Part of the definition of those
// sums.
inline constexpr std::int64_t kPieceElements = 1 << 18;

struct FactoredScratch {
  std::int64_t rows_in_piece, pieces, leaves;
  double* partial;       // [pieces, columns]
  double* sums;          // [leaves], of squares
  float* update;         // [rows * columns]
  float* row_factor;     // [rows]
  float* column_factor;  // [columns]
  std::uint64_t bytes;

  // columns > 0; `at` may be null for the size alone.
  static FactoredScratch of(std::int64_t rows, std::int64_t columns, std::byte* at) {
    FactoredScratch out{};
    out.rows_in_piece = std::max<std::int64_t>(1, kPieceElements / columns);
    out.pieces = math::block_count(rows, out.rows_in_piece);
    out.leaves = math::block_count(rows * columns, kSumLeaf);
    out.bytes = static_cast<std::uint64_t>((out.pieces * columns + out.leaves) * 8 +
                                           (rows * columns + rows + columns) * 4);
    if (at != nullptr) {
      out.partial = reinterpret_cast<double*>(at);
      out.sums = out.partial + out.pieces * columns;
      out.update = reinterpret_cast<float*>(out.sums + out.leaves);
      out.row_factor = out.update + rows * columns;
      out.column_factor = out.row_factor + rows;
    }
    return out;
  }
};

struct OrthogonalScratch {
  std::int64_t leaves;
  double* sums;   // [leaves], of squares
  float* x;       // [rows * columns]
  float* other;   // [rows * columns]
  float* gram;    // [m, m], m the smaller extent
  float* square;  // [m, m]
  std::uint64_t bytes;

  static OrthogonalScratch of(std::int64_t rows, std::int64_t columns, std::byte* at) {
    OrthogonalScratch out{};
    const std::int64_t count = rows * columns;
    const std::int64_t m = std::min(rows, columns);
    out.leaves = math::block_count(count, kSumLeaf);
    out.bytes = static_cast<std::uint64_t>(out.leaves * 8 + (2 * count + 2 * m * m) * 4);
    if (at != nullptr) {
      out.sums = reinterpret_cast<double*>(at);
      out.x = reinterpret_cast<float*>(out.sums + out.leaves);
      out.other = out.x + count;
      out.gram = out.other + count;
      out.square = out.gram + m * m;
    }
    return out;
  }
};

// Bytes that a matrix of a rule of this kind needs; 0 for element-wise rules and without elements.
inline std::uint64_t matrix_scratch_bytes(math::RuleKind kind, std::int64_t rows,
                                          std::int64_t columns) {
  if (rows * columns == 0 || math::is_element_rule(kind)) {
    return 0;
  }
  return kind == math::RuleKind::kFactored ? FactoredScratch::of(rows, columns, nullptr).bytes
                                           : OrthogonalScratch::of(rows, columns, nullptr).bytes;
}

}  // namespace nibble::backend
