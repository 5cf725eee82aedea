// SPDX-License-Identifier: Apache-2.0
// Adafactor (Shazeer and Stern, ICML 2018, algorithms 4 and 5). The passes over the matrix stand in
// src/optim/factored.cc; here are its states and what is equal for all elements. For matrices the
// second moment is kept as means of rows and columns ("exp_avg_sq_row", "exp_avg_sq_col", fp32):
//   R = b R + (1-b) mean_cols(g^2 + eps1);  C = b C + (1-b) mean_rows(g^2 + eps1)
//   u = g / sqrt(R C / mean(R));  u /= max(1, rms(u) / clip_threshold)
//   p -= lr u (or lr times the first moment of u, if beta1 > 0),  b = 1 - t^decay_rate
// Other shapes keep the whole second moment. scale_parameter multiplies lr by max(eps2, rms(p));
// relative_step takes lr = min(1e-2, 1/sqrt(t)), or min(1e-6 t, 1/sqrt(t)) with warmup_init.
struct Adafactor {
  static constexpr auto kKind = math::RuleKind::kFactored;
  static constexpr auto kDecay = math::Decay::kBefore;
  static constexpr int kStates = 2;
  enum Hyper {
    kLr,
    kWd,
    kB1,
    kE1,
    kE2,
    kClip,
    kDecayRate,
    kScaleParameter,
    kRelativeStep,
    kWarmupInit
  };
  static constexpr math::StateSpec kState[] = {{"exp_avg", true, kB1}, {"exp_avg_sq", false}};
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-3),        math::weight_decay_spec(),
      math::beta_spec("beta1", 0),           {"eps", 1e-30, 1e-37, math::kAnyFinite},
      {"eps2", 1e-3, 0, math::kAnyFinite},   {"clip_threshold", 1, 0, math::kAnyFinite},
      {"decay_rate", -0.8, -1e3, 0},         math::switch_spec("scale_parameter", 0),
      math::switch_spec("relative_step", 0), math::switch_spec("warmup_init", 0)};

  enum Term {
    kMinusStep,
    kBeta1,
    kGain1,
    kBeta2,
    kGain2,
    kEps,
    kFloor,
    kThreshold,
    kByRms,
    kTerms
  };

  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    const double t = static_cast<double>(step);
    const double beta2 = 1.0 - math::exp(h[kDecayRate] * math::log(t));
    double lr = h[kLr];
    if (h[kRelativeStep] != 0) {
      lr = std::min(h[kWarmupInit] != 0 ? 1e-6 * t : 1e-2, 1.0 / std::sqrt(t));
    }
    terms[kMinusStep] = static_cast<float>(-lr);
    terms[kBeta1] = static_cast<float>(h[kB1]);
    terms[kGain1] = static_cast<float>(1.0 - h[kB1]);
    terms[kBeta2] = static_cast<float>(beta2);
    terms[kGain2] = static_cast<float>(1.0 - beta2);
    terms[kEps] = static_cast<float>(h[kE1]);
    terms[kFloor] = static_cast<float>(h[kE2]);
    terms[kThreshold] = static_cast<float>(h[kClip]);
    terms[kByRms] = h[kScaleParameter] != 0 ? 1.0F : 0.0F;
  }

  // The last pass: the clipped update in, its first moment out (itself, without one).
  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    return s[0];
  }
};
