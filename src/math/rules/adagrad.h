// SPDX-License-Identifier: Apache-2.0
// Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011, in the form of PyTorch's Adagrad), L2 decay:
//   s = s + g^2;  direction = g / (sqrt(s) + eps);  step = lr / (1 + (t-1) lr_decay)
struct Adagrad {
  static constexpr auto kKind = math::RuleKind::kElement;
  static constexpr auto kDecay = math::Decay::kIntoGradient;
  static constexpr int kStates = 1;
  static constexpr math::StateSpec kState[] = {{"sum", false}};

  enum Hyper { kLr, kWd, kE, kLrDecay };
  static constexpr math::HyperSpec kHyper[] = {math::learning_rate_spec(1e-2),
                                               math::weight_decay_spec(),
                                               math::eps_spec(1e-10),
                                               {"lr_decay", 0, 0, math::kAnyFinite}};

  enum Term { kMinusStep, kEps, kTerms };

  static NIBBLE_HD void prepare(const double* h, std::int64_t step, float* terms) {
    terms[kMinusStep] =
        static_cast<float>(-h[kLr] / (1.0 + static_cast<double>(step - 1) * h[kLrDecay]));
    terms[kEps] = static_cast<float>(h[kE]);
  }

  template <class V>
  static NIBBLE_HD inline V direction(const V* c, V g, V* s) {
    s[0] = fma(g, g, s[0]);
    return g / (sqrt(s[0]) + c[kEps]);
  }
};
