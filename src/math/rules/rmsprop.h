// SPDX-License-Identifier: Apache-2.0
// RMSprop (Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012, in the
// form of PyTorch's RMSprop without centring), L2 decay:
//   v = a v + (1-a) g^2;  b = mu b + g / (sqrt(v) + eps);  direction = b
struct RmsProp {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kIntoGradient;
  static constexpr int kStates = 2;
  enum Hyper { kLr, kWd, kA, kE, kMu };
  static constexpr math::StateSpec kState[] = {{"square_avg", false},
                                               {"momentum_buffer", true, kMu}};
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-2), math::weight_decay_spec(), math::beta_spec("alpha", 0.99),
      math::eps_spec(1e-8), math::beta_spec("momentum", 0)};

  enum Term { kMinusStep, kAlpha, kGain, kEps, kMomentum, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t, float* terms) {
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kAlpha] = static_cast<float>(h[kA]);
    terms[kGain] = static_cast<float>(1.0 - h[kA]);
    terms[kEps] = static_cast<float>(h[kE]);
    terms[kMomentum] = static_cast<float>(h[kMu]);
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kAlpha], s[0], (c[kGain] * g) * g);
    s[1] = fma(c[kMomentum], s[1], g / (sqrt(s[0]) + c[kEps]));
    return s[1];
  }
};
