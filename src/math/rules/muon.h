// SPDX-License-Identifier: Apache-2.0
// Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) for
// matrices [rows, cols]; the passes stand in src/optim/orthogonal.cc:
//   m = mu m + (1-mu) g;  x = m, or (1-mu) g + mu m with Nesterov's momentum
//   x = NewtonSchulz(x / (|x| + eps)), ns_steps times  x = a x + (b A + c A^2) x,  A = x x^T
//   p -= lr sqrt(max(1, rows / cols)) x;  with match_rms instead lr 0.2 sqrt(max(rows, cols)),
//   which gives AdamW's update size (Liu et al., "Muon is Scalable for LLM Training", 2025, eq. 4)
struct Muon {
  static constexpr auto kKind = math::RuleKind::kOrthogonal;
  static constexpr auto kDecay = math::Decay::kBefore;
  static constexpr int kStates = 1;
  static constexpr math::StateSpec kState[] = {{"momentum_buffer", true}};

  // Coefficients a, b, c of the quintic iteration (Jordan et al.).
  static constexpr float kA = 3.4445F;
  static constexpr float kB = -4.7750F;
  static constexpr float kC = 2.0315F;

  enum Hyper { kLr, kWd, kMu, kNesterov, kSteps, kE, kMatchRms };
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(2e-2),    math::weight_decay_spec(),
      math::beta_spec("momentum", 0.95), math::switch_spec("nesterov", 1),
      {"ns_steps", 5, 1, 100, true},     math::eps_spec(1e-7),
      math::switch_spec("match_rms", 0)};

  enum Term { kMinusStep, kMomentum, kGain, kOwn, kAhead, kEps, kIterations, kLikeAdam, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t, float* terms) {
    const bool nesterov = h[kNesterov] != 0;
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kMomentum] = static_cast<float>(h[kMu]);
    terms[kGain] = static_cast<float>(1.0 - h[kMu]);
    terms[kOwn] = nesterov ? terms[kGain] : 0.0F;
    terms[kAhead] = nesterov ? terms[kMomentum] : 1.0F;
    terms[kEps] = static_cast<float>(h[kE]);
    terms[kIterations] = static_cast<float>(h[kSteps]);
    terms[kLikeAdam] = h[kMatchRms] != 0 ? 1.0F : 0.0F;
  }

  // What is orthogonalised.
  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kMomentum], s[0], c[kGain] * g);
    return fma(c[kAhead], s[0], c[kOwn] * g);
  }
};
