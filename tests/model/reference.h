// SPDX-License-Identifier: Apache-2.0
// The decoder again, in double precision and plain loops: what the model's forward pass and
// gradients are judged by. Written from the papers' formulas; shares no code with src/model.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "math/philox.h"
#include "support/tiny_model.h"

namespace nibble::test {

inline constexpr const char* kLinearNames[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                               "ffn_gate", "ffn_up", "ffn_down"};

struct ReferencePair {
  std::vector<double> a, b;  // [r, inputs], [outputs, r]
};

struct ReferenceAdapter {
  std::int64_t rank = 0;
  double scale = 1;
  std::map<std::string, ReferencePair> pairs;  // by blk.<layer>.<linear>
  // Dropout of the low-rank branch's input.
  double keep = 1;
  std::uint64_t seed = 0;
  std::uint32_t micro_step = 0;
};

using Rows = std::vector<std::vector<double>>;

class Reference {
 public:
  Reference(const TinyModel& model, const ReferenceAdapter* adapter)
      : model_(model), shape_(model.shape()), adapter_(adapter) {}

  // Cross-entropy in nats of every row with a target, in order.
  std::vector<double> token_losses(std::span<const std::int32_t> ids,
                                   std::span<const std::int32_t> targets,
                                   std::span<const std::int64_t> starts) const {
    const Rows hidden = decode(ids, starts);
    std::vector<double> losses;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (targets[i] < 0) {
        continue;
      }
      const std::vector<double> logits = head(hidden[i]);
      double top = logits[0], sum = 0;
      for (const double logit : logits) {
        top = std::max(top, logit);
      }
      for (const double logit : logits) {
        sum += std::exp(logit - top);
      }
      losses.push_back(top + std::log(sum) - logits[static_cast<std::size_t>(targets[i])]);
    }
    return losses;
  }

  double loss(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets,
              std::span<const std::int64_t> starts) const {
    double total = 0;
    for (const double term : token_losses(ids, targets, starts)) {
      total += term;
    }
    return total;
  }

  Rows logits(std::span<const std::int32_t> ids) const {
    const std::int64_t starts[] = {0, static_cast<std::int64_t>(ids.size())};
    Rows out;
    for (const std::vector<double>& row : decode(ids, starts)) {
      out.push_back(head(row));
    }
    return out;
  }

 private:
  Rows decode(std::span<const std::int32_t> ids, std::span<const std::int64_t> starts) const {
    const std::vector<double>& table = model_.values("token_embd");
    Rows x;
    for (const std::int32_t id : ids) {
      const auto at = table.begin() + id * shape_.width;
      x.emplace_back(at, at + shape_.width);
    }
    for (std::int64_t layer = 0; layer < shape_.layers; ++layer) {
      const std::string blk = "blk." + std::to_string(layer) + ".";
      const Rows normed = norm(x, blk + "attn_norm");
      Rows q = linear(normed, blk + "attn_q"), k = linear(normed, blk + "attn_k");
      rotate(q, starts);
      rotate(k, starts);
      add(x, linear(attend(q, k, linear(normed, blk + "attn_v"), starts), blk + "attn_output"));
      const Rows inner = norm(x, blk + "ffn_norm");
      Rows gate = linear(inner, blk + "ffn_gate");
      const Rows up = linear(inner, blk + "ffn_up");
      for (std::size_t t = 0; t < gate.size(); ++t) {
        for (std::size_t j = 0; j < gate[t].size(); ++j) {
          gate[t][j] = gate[t][j] / (1 + std::exp(-gate[t][j])) * up[t][j];
        }
      }
      add(x, linear(gate, blk + "ffn_down"));
    }
    return norm(x, "output_norm");
  }

  std::vector<double> head(const std::vector<double>& x) const {
    return multiply(model_.values(shape_.tied ? "token_embd" : "output"), x);
  }

  static void add(Rows& x, const Rows& y) {
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t j = 0; j < x[t].size(); ++j) {
        x[t][j] += y[t][j];
      }
    }
  }

  static std::vector<double> multiply(const std::vector<double>& w, const std::vector<double>& x) {
    std::vector<double> y(w.size() / x.size());
    const double* row = w.data();
    for (double& out : y) {
      for (const double value : x) {
        out += *row++ * value;
      }
    }
    return y;
  }

  Rows norm(const Rows& x, const std::string& name) const {
    const std::vector<double>& weight = model_.values(name);
    const double epsilon = static_cast<double>(
        std::get<float>(model_.keys.at("llama.attention.layer_norm_rms_epsilon")));
    Rows out = x;
    for (std::vector<double>& row : out) {
      double squares = 0;
      for (const double value : row) {
        squares += value * value;
      }
      const double factor = 1 / std::sqrt(squares / static_cast<double>(row.size()) + epsilon);
      for (std::size_t j = 0; j < row.size(); ++j) {
        row[j] *= factor * weight[j];
      }
    }
    return out;
  }

  Rows linear(const Rows& x, const std::string& name) const {
    const std::vector<double>& w = model_.values(name);
    const ReferencePair* pair = nullptr;
    if (adapter_ != nullptr) {
      const auto found = adapter_->pairs.find(name);
      pair = found == adapter_->pairs.end() ? nullptr : &found->second;
    }
    Rows out;
    for (std::size_t t = 0; t < x.size(); ++t) {
      out.push_back(multiply(w, x[t]));
      if (pair == nullptr) {
        continue;
      }
      const std::vector<double> low = multiply(pair->a, dropped(x[t], t, name));
      const std::vector<double> high = multiply(pair->b, low);
      for (std::size_t j = 0; j < high.size(); ++j) {
        out[t][j] += adapter_->scale * high[j];
      }
    }
    return out;
  }

  // Inverted dropout: element (t, j) of the branch's input has random bits t * inputs + j of the
  // stream of its layer's name.
  std::vector<double> dropped(std::vector<double> x, std::size_t t, const std::string& name) const {
    if (adapter_->keep >= 1) {
      return x;
    }
    for (std::size_t j = 0; j < x.size(); ++j) {
      const std::uint64_t element = t * x.size() + j;
      const math::Philox4 bits = math::philox4x32_10(
          {static_cast<std::uint32_t>(element / 4), math::tensor_id(name.c_str()),
           adapter_->micro_step, static_cast<std::uint32_t>(math::RandomPurpose::kDropout)},
          static_cast<std::uint32_t>(adapter_->seed),
          static_cast<std::uint32_t>(adapter_->seed >> 32));
      const double uniform = static_cast<double>(bits[element % 4] >> 8) / (1 << 24);
      x[j] = uniform < adapter_->keep ? x[j] / adapter_->keep : 0;
    }
    return x;
  }

  // Rotates pairs (2i, 2i + 1) of each head by position * base^(-2i / dim) (Su et al. 2021).
  void rotate(Rows& x, std::span<const std::int64_t> starts) const {
    const double base =
        static_cast<double>(std::get<float>(model_.keys.at("llama.rope.freq_base")));
    const auto dim = static_cast<std::size_t>(shape_.head_dim);
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
      for (std::int64_t t = starts[s]; t < starts[s + 1]; ++t) {
        std::vector<double>& row = x[static_cast<std::size_t>(t)];
        for (std::size_t at = 0; at < row.size(); at += 2) {
          const double angle =
              static_cast<double>(t - starts[s]) *
              std::pow(base, -static_cast<double>(at % dim) / static_cast<double>(dim));
          const double a = row[at], b = row[at + 1];
          row[at] = a * std::cos(angle) - b * std::sin(angle);
          row[at + 1] = a * std::sin(angle) + b * std::cos(angle);
        }
      }
    }
  }

  Rows attend(const Rows& q, const Rows& k, const Rows& v,
              std::span<const std::int64_t> starts) const {
    const std::int64_t dim = shape_.head_dim;
    Rows out(q.size(), std::vector<double>(static_cast<std::size_t>(shape_.heads * dim)));
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
      for (std::int64_t t = starts[s]; t < starts[s + 1]; ++t) {
        for (std::int64_t h = 0; h < shape_.heads; ++h) {
          attend_row(q, k, v, starts[s], t, h,
                     &out[static_cast<std::size_t>(t)][static_cast<std::size_t>(h * dim)]);
        }
      }
    }
    return out;
  }

  // Head h of row t, which sees rows [first, t].
  void attend_row(const Rows& q, const Rows& k, const Rows& v, std::int64_t first, std::int64_t t,
                  std::int64_t h, double* out) const {
    const std::int64_t dim = shape_.head_dim;
    const std::int64_t kv = h / (shape_.heads / shape_.kv_heads);
    const double* query = &q[static_cast<std::size_t>(t)][static_cast<std::size_t>(h * dim)];
    std::vector<double> weights;
    double top = -INFINITY, sum = 0;
    for (std::int64_t u = first; u <= t; ++u) {
      const double* key = &k[static_cast<std::size_t>(u)][static_cast<std::size_t>(kv * dim)];
      double score = 0;
      for (std::int64_t i = 0; i < dim; ++i) {
        score += query[i] * key[i];
      }
      weights.push_back(score / std::sqrt(static_cast<double>(dim)));
      top = std::max(top, weights.back());
    }
    for (double& weight : weights) {
      weight = std::exp(weight - top);
      sum += weight;
    }
    for (std::int64_t u = first; u <= t; ++u) {
      const double weight = weights[static_cast<std::size_t>(u - first)] / sum;
      const double* value = &v[static_cast<std::size_t>(u)][static_cast<std::size_t>(kv * dim)];
      for (std::int64_t i = 0; i < dim; ++i) {
        out[i] += weight * value[i];
      }
    }
  }

  const TinyModel& model_;
  TinyShape shape_;
  const ReferenceAdapter* adapter_;
};

}  // namespace nibble::test
