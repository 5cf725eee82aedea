// SPDX-License-Identifier: Apache-2.0
// AMSGrad (Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, algorithm 2)
// with decoupled decay and bias corrections, as PyTorch's AdamW(amsgrad=True):
//   u = max(u, v);  direction = m / (sqrt(u) / sqrt(1-b2^t) + eps)
struct AmsGrad : AdamW {
  static constexpr int kStates = 3;
  static constexpr math::StateSpec kState[] = {
      {"exp_avg", true}, {"exp_avg_sq", false}, {"max_exp_avg_sq", false}};

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    s[1] = fma(c[kBeta2], s[1], (c[kGain2] * g) * g);
    s[2] = max(s[2], s[1]);
    return s[0] / fma(sqrt(s[2]), c[kRoot], c[kEps]);
  }
};
