// SPDX-License-Identifier: Apache-2.0
// SGD with momentum (Sutskever et al., ICML 2013, in the form of PyTorch's SGD), L2 decay:
//   m = mu m + (1-dampening) g  (m = g at the optimizer's first step; PyTorch's is the parameter's)
//   direction = m, or g + mu m with Nesterov's momentum; without momentum (mu = 0) it is g
struct Sgd {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kIntoGradient;
  static constexpr int kStates = 1;
  enum Hyper { kLr, kWd, kMu, kDampening, kNesterov };
  static constexpr math::StateSpec kState[] = {{"momentum_buffer", true, kMu}};
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-2), math::weight_decay_spec(), math::beta_spec("momentum", 0.9),
      math::beta_spec("dampening", 0), math::switch_spec("nesterov", 0)};

  enum Term { kMinusStep, kMomentum, kGain, kOwn, kAhead, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    const bool nesterov = h[kNesterov] != 0;
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kMomentum] = static_cast<float>(h[kMu]);
    terms[kGain] = step == 1 || h[kMu] == 0 ? 1.0F : static_cast<float>(1.0 - h[kDampening]);
    terms[kOwn] = nesterov ? 1.0F : 0.0F;
    terms[kAhead] = nesterov ? static_cast<float>(h[kMu]) : 1.0F;
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kMomentum], s[0], c[kGain] * g);
    return fma(c[kAhead], s[0], c[kOwn] * g);
  }
};
