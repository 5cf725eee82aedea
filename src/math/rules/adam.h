// SPDX-License-Identifier: Apache-2.0
// Adam (Kingma and Ba, ICLR 2015, algorithm 1). Weight decay is an L2 term in the gradient; in all
// else it is AdamW.
struct Adam : AdamW {
  static constexpr auto kDecay = math::Decay::kIntoGradient;
};
