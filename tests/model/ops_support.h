// SPDX-License-Identifier: Apache-2.0
// Matrices for tests of ModelOps: random values, in either dtype, read back as double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "backend/model_ops.h"
#include "support/golden_rng.h"

namespace nibble::test {

using backend::AttentionShape;
using backend::ConstMatrix;
using backend::DType;
using backend::LowRank;
using backend::Matrix;

inline double element(ConstMatrix m, std::int64_t i, std::int64_t j) {
  if (m.dtype == DType::kF32) {
    return static_cast<double>(m.row<float>(i)[j]);
  }
  const std::uint32_t bits = static_cast<std::uint32_t>(m.row<std::uint16_t>(i)[j]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<double>(value);
}

// Values in [-2, 2) from `seed`; zeros for seed 0. With bf16, values that bf16 holds.
class TestMatrix {
 public:
  TestMatrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed, DType dtype = DType::kF32)
      : rows_(rows), cols_(cols), dtype_(dtype), data_(static_cast<std::size_t>(rows * cols)) {
    for (std::int64_t i = 0; i < rows * cols && seed != 0; ++i) {
      set(0, i, 2 * static_cast<double>(golden_uniform(seed, 50, static_cast<std::uint64_t>(i))));
    }
  }

  Matrix view() { return {data_.data(), dtype_, rows_, cols_, cols_}; }
  ConstMatrix view() const { return {data_.data(), dtype_, rows_, cols_, cols_}; }
  std::span<const float> floats() const { return data_; }  // fp32 only
  double operator()(std::int64_t i, std::int64_t j) const { return element(view(), i, j); }
  void set(std::int64_t i, std::int64_t j, double value) {
    const auto single = static_cast<float>(value);
    const std::int64_t at = i * cols_ + j;
    if (dtype_ == DType::kF32) {
      data_[static_cast<std::size_t>(at)] = single;
      return;
    }
    std::uint32_t bits;  // truncated: any value that bf16 holds will do
    std::memcpy(&bits, &single, sizeof bits);
    reinterpret_cast<std::uint16_t*>(data_.data())[at] = static_cast<std::uint16_t>(bits >> 16);
  }
  std::vector<double> row(std::int64_t i) const {
    std::vector<double> out;
    for (std::int64_t j = 0; j < cols_; ++j) {
      out.push_back((*this)(i, j));
    }
    return out;
  }
  std::vector<double> all() const {
    std::vector<double> out;
    for (std::int64_t i = 0; i < rows_; ++i) {
      const std::vector<double> one = row(i);
      out.insert(out.end(), one.begin(), one.end());
    }
    return out;
  }

 private:
  std::int64_t rows_, cols_;
  DType dtype_;
  std::vector<float> data_;  // bf16 takes the first half
};

// Largest absolute difference; infinite when the sizes differ or a value is NaN.
inline double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double apart = std::fabs(a[i] - b[i]);
    worst = std::isnan(apart) ? INFINITY : std::max(worst, apart);
  }
  return worst;
}

// Derivative of f at x with respect to element j: central difference.
inline double slope(const std::function<double(const std::vector<double>&)>& f,
                    std::vector<double> x, std::int64_t j) {
  constexpr double kStep = 1e-5;
  const auto at = static_cast<std::size_t>(j);
  const double middle = x[at];
  x[at] = middle + kStep;
  const double above = f(x);
  x[at] = middle - kStep;
  return (above - f(x)) / (2 * kStep);
}

inline std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return info.param == DType::kF32 ? "fp32" : "bf16";
}

}  // namespace nibble::test
