// SPDX-License-Identifier: Apache-2.0
// LAMB (You et al., "Large Batch Optimization for Deep Learning", ICLR 2020, algorithm 2, with bias
// corrections): r = (m / (1-b1^t)) / (sqrt(v) / sqrt(1-b2^t) + eps);  u = r + wd p;
// p -= lr |p| / |u| u, where the ratio is 1 if either norm is 0. The optimizer takes the norms in a
// pass of its own.
struct Lamb : AdamW {
  static constexpr auto kKind = math::RuleKind::kTrustRatio;
  static constexpr math::HyperSpec kHyper[] = {
      math::learning_rate_spec(1e-3), math::weight_decay_spec(), math::beta_spec("beta1", 0.9),
      math::beta_spec("beta2", 0.999), math::eps_spec(1e-6)};

  enum Term { kFast = AdamW::kTerms, kTerms };

  // AdamW has the first bias correction in its step; here it belongs to the direction's norm.
  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    AdamW::prepare(h, step, terms);
    terms[kMinusStep] = static_cast<float>(-h[kLr]);
    terms[kFast] = static_cast<float>(1.0 / (1.0 - math::power(h[kB1], step)));
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(c[kBeta1], s[0], c[kGain1] * g);
    s[1] = fma(c[kBeta2], s[1], (c[kGain2] * g) * g);
    return (c[kFast] * s[0]) / fma(sqrt(s[1]), c[kRoot], c[kEps]);
  }
};
