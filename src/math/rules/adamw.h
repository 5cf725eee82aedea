// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2):
//   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p = (1 - lr wd) p - lr / (1-b1^t) * m / (sqrt(v) / sqrt(1-b2^t) + eps)
// A rule file has no include guard and no includes: it is included once for every instruction set,
// inside that set's namespace (README.md of src/math).
struct AdamW {
  static constexpr int kStates = 2;
  static constexpr math::StateSpec kState[] = {{"exp_avg", true}, {"exp_avg_sq", false}};

  enum Term { kBeta1, kGain1, kBeta2, kGain2, kRoot, kEps, kKeep, kMinusStep, kTerms };

  static void prepare(const math::Hyper& h, std::int64_t step, float* terms) {
    const double t = static_cast<double>(step);
    terms[kBeta1] = static_cast<float>(h.beta1);
    terms[kGain1] = static_cast<float>(1.0 - h.beta1);
    terms[kBeta2] = static_cast<float>(h.beta2);
    terms[kGain2] = static_cast<float>(1.0 - h.beta2);
    terms[kRoot] = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(h.beta2, t)));
    terms[kEps] = static_cast<float>(h.eps);
    terms[kKeep] = static_cast<float>(1.0 - h.learning_rate * h.weight_decay);
    terms[kMinusStep] = static_cast<float>(-h.learning_rate / (1.0 - std::pow(h.beta1, t)));
  }

  // Updates the states in s and returns the new weight.
  template <class V>
  static inline V apply(const V* c, V p, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    s[1] = fma(c[kBeta2], s[1], (c[kGain2] * g) * g);
    const V denominator = fma(sqrt(s[1]), c[kRoot], c[kEps]);
    return fma(c[kMinusStep], s[0] / denominator, p * c[kKeep]);
  }
};
