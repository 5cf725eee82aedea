// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2):
//   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   direction = m / (sqrt(v) / sqrt(1-b2^t) + eps);  step = lr / (1-b1^t)
// A rule file has no include guard and no includes: it is included once for every instruction set,
// inside that set's namespace (README.md of src/math).
struct AdamW {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kBefore;
  static constexpr int kStates = 2;
  static constexpr math::StateSpec kState[] = {{"exp_avg", true}, {"exp_avg_sq", false}};

  enum Hyper { kLr, kWd, kB1, kB2, kE };
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-3), math::weight_decay_spec(), math::beta_spec("beta1", 0.9),
      math::beta_spec("beta2", 0.999), math::eps_spec(1e-8)};

  enum Term { kMinusStep, kBeta1, kGain1, kBeta2, kGain2, kRoot, kEps, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    terms[kMinusStep] = static_cast<float>(-h[kLr] / (1.0 - math::power(h[kB1], step)));
    terms[kBeta1] = static_cast<float>(h[kB1]);
    terms[kGain1] = static_cast<float>(1.0 - h[kB1]);
    terms[kBeta2] = static_cast<float>(h[kB2]);
    terms[kGain2] = static_cast<float>(1.0 - h[kB2]);
    terms[kRoot] = static_cast<float>(1.0 / std::sqrt(1.0 - math::power(h[kB2], step)));
    terms[kEps] = static_cast<float>(h[kE]);
  }

  // Updates the states in s and returns the direction.
  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    s[1] = fma(c[kBeta2], s[1], (c[kGain2] * g) * g);
    return s[0] / fma(sqrt(s[1]), c[kRoot], c[kEps]);
  }
};
