// SPDX-License-Identifier: Apache-2.0
// Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2):
//   direction = sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g
struct Lion {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kBefore;
  static constexpr int kStates = 1;
  static constexpr math::StateSpec kState[] = {{"exp_avg", true}};

  enum Hyper { kLr, kWd, kB1, kB2 };
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-4), math::weight_decay_spec(), math::beta_spec("beta1", 0.9),
      math::beta_spec("beta2", 0.99)};

  enum Term { kMinusStep, kBeta1, kGain1, kBeta2, kGain2, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t, float* terms) {
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kBeta1] = static_cast<float>(h[kB1]);
    terms[kGain1] = static_cast<float>(1.0 - h[kB1]);
    terms[kBeta2] = static_cast<float>(h[kB2]);
    terms[kGain2] = static_cast<float>(1.0 - h[kB2]);
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    const V out = sign(fma(c[kBeta1], s[0], c[kGain1] * g));
    s[0] = fma(c[kBeta2], s[0], c[kGain2] * g);
    return out;
  }
};
