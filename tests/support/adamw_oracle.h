// SPDX-License-Identifier: Apache-2.0
// AdamW in double, written from the paper (Loshchilov and Hutter, algorithm 2) and deliberately not
// from src/math: what the library is judged by.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace nibble::test {

struct AdamWOracle {
  double lr, beta1, beta2, eps, decay;
  std::vector<double> w, m, v;
  int t = 0;

  void step(const float* grad) {
    ++t;
    const double bias1 = 1.0 - std::pow(beta1, t);
    const double bias2 = 1.0 - std::pow(beta2, t);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = grad[i];
      m[i] = beta1 * m[i] + (1.0 - beta1) * g;
      v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
      w[i] -= lr * decay * w[i];
      w[i] -= lr * (m[i] / bias1) / (std::sqrt(v[i] / bias2) + eps);
    }
  }
};

inline AdamWOracle make_oracle(double lr, double beta1, double beta2, double eps, double decay,
                               const std::vector<float>& w0) {
  AdamWOracle out{lr, beta1, beta2, eps, decay, {w0.begin(), w0.end()}, {}, {}, 0};
  out.m.resize(w0.size());
  out.v.resize(w0.size());
  return out;
}

}  // namespace nibble::test
