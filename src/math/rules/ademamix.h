// SPDX-License-Identifier: Apache-2.0
// AdEMAMix (Pagliardini, Ablin and Grangier, ICLR 2025, algorithm 1):
//   m1 = b1 m1 + (1-b1) g;  m2 = b3 m2 + (1-b3) g;  v = b2 v + (1-b2) g^2
//   direction = (m1 / (1-b1^t) + alpha m2) / (sqrt(v) / sqrt(1-b2^t) + eps)
// With t_alpha and t_beta3 (steps; 0: none) alpha and b3 are warmed up as in the paper's eq. 4;
// b3 is not where b1 or b3 is 0, which has no half-life.
struct AdEMAMix {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kBefore;
  static constexpr int kStates = 3;
  static constexpr math::StateSpec kState[] = {
      {"exp_avg", true}, {"exp_avg_slow", true}, {"exp_avg_sq", false}};

  enum Hyper { kLr, kWd, kB1, kB2, kB3, kA, kE, kWarmAlpha, kWarmBeta3 };
  static constexpr math::HyperSpec kHyper[] = {math::learning_rate_spec(1e-3),
                                               math::weight_decay_spec(),
                                               math::beta_spec("beta1", 0.9),
                                               math::beta_spec("beta2", 0.999),
                                               math::beta_spec("beta3", 0.9999),
                                               {"alpha", 5, 0, math::kAnyFinite},
                                               math::eps_spec(1e-8),
                                               {"t_alpha", 0, 0, math::kAnyFinite},
                                               {"t_beta3", 0, 0, math::kAnyFinite}};

  enum Term {
    kMinusStep,
    kBeta1,
    kGain1,
    kBeta2,
    kGain2,
    kBeta3,
    kGain3,
    kFast,
    kAlpha,
    kRoot,
    kEps,
    kTerms
  };

  // eq. 4: the half-life of b3, not b3 itself, grows linearly from that of b1.
  static NIBBLE_HD double beta3_at(double t, const double* h) {
    if (h[kWarmBeta3] <= 0 || t >= h[kWarmBeta3] || h[kB1] <= 0 || h[kB3] <= 0) {
      return h[kB3];
    }
    const double share = t / h[kWarmBeta3];
    const double from = math::log(h[kB1]);
    const double to = math::log(h[kB3]);
    return std::min(math::exp(from * to / ((1.0 - share) * to + share * from)), h[kB3]);
  }

  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    const double t = static_cast<double>(step);
    const double b3 = beta3_at(t, h);
    const double alpha = h[kWarmAlpha] > 0 ? std::min(t * h[kA] / h[kWarmAlpha], h[kA]) : h[kA];
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kBeta1] = static_cast<float>(h[kB1]);
    terms[kGain1] = static_cast<float>(1.0 - h[kB1]);
    terms[kBeta2] = static_cast<float>(h[kB2]);
    terms[kGain2] = static_cast<float>(1.0 - h[kB2]);
    terms[kBeta3] = static_cast<float>(b3);
    terms[kGain3] = static_cast<float>(1.0 - b3);
    terms[kFast] = static_cast<float>(1.0 / (1.0 - math::power(h[kB1], step)));
    terms[kAlpha] = static_cast<float>(alpha);
    terms[kRoot] = static_cast<float>(1.0 / std::sqrt(1.0 - math::power(h[kB2], step)));
    terms[kEps] = static_cast<float>(h[kE]);
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    s[1] = fma(c[kBeta3], s[1], c[kGain3] * g);
    s[2] = fma(c[kBeta2], s[2], (c[kGain2] * g) * g);
    return fma(c[kAlpha], s[1], c[kFast] * s[0]) / fma(sqrt(s[2]), c[kRoot], c[kEps]);
  }
};
