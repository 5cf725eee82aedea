// SPDX-License-Identifier: Apache-2.0
// Every rule in double, written from the papers and the peers' documentation and deliberately not
// from src/math: what the library is judged by. Hyper-parameters by name; what is not given is the
// caller's to know. Gradients that are not finite are treated as NIBBLE_NONFINITE_SKIP_ELEMENT has
// it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "nibble/nibble.h"

namespace nibble::test {

class RuleOracle {
 public:
  using Vector = std::vector<double>;

  RuleOracle(std::string rule, std::map<std::string, double> hyper, const std::vector<float>& w0,
             std::size_t rows = 1)
      : w(w0.begin(), w0.end()), rule_(std::move(rule)), h_(std::move(hyper)), rows_(rows) {
    if (rules().count(rule_) == 0) {
      throw std::invalid_argument("no oracle for rule " + rule_);
    }
    for (Vector* state : {&a_, &b_, &c_}) {
      state->assign(w.size(), 0.0);
    }
    row_.assign(rows, 0.0);
    column_.assign(w.size() / rows, 0.0);
  }

  template <class Grad>
  void step(const Grad* gradient) {
    ++t_;
    Vector g(gradient, gradient + w.size());
    if (rule_ == "lamb") {
      return lamb(g);
    }
    if (rule_ == "adafactor") {
      return adafactor(g);
    }
    if (rule_ == "muon") {
      return muon(g);
    }
    const double lr = h("learning_rate");
    const double wd = h("weight_decay");
    const bool l2 = rule_ == "adam" || rule_ == "sgd" || rule_ == "adagrad" || rule_ == "rmsprop";
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (!std::isfinite(g[i])) {
        continue;
      }
      if (l2) {
        g[i] += wd * w[i];
      } else if (!decay_after) {
        w[i] -= lr * wd * w[i];
      }
      w[i] -= update(i, g[i]);
      if (!l2 && decay_after) {
        w[i] -= lr * wd * w[i];
      }
    }
  }

  Vector w;
  bool decay_after = false;

 private:
  static const std::set<std::string>& rules() {
    static const std::set<std::string> kRules = {"adamw", "adam",      "amsgrad", "lion",
                                                 "sgd",   "adagrad",   "rmsprop", "ademamix",
                                                 "lamb",  "adafactor", "muon"};
    return kRules;
  }

  double h(const char* name) const {
    const auto at = h_.find(name);
    return at != h_.end() ? at->second : 0.0;
  }

  // lr times the direction, for one element.
  double update(std::size_t i, double g) {
    const double lr = h("learning_rate");
    const double b1 = h("beta1");
    const double b2 = h("beta2");
    const double c1 = 1.0 - std::pow(b1, t_);
    const double c2 = 1.0 - std::pow(b2, t_);
    if (rule_ == "adamw" || rule_ == "adam" || rule_ == "amsgrad") {
      a_[i] = b1 * a_[i] + (1.0 - b1) * g;
      b_[i] = b2 * b_[i] + (1.0 - b2) * g * g;
      c_[i] = std::max(c_[i], b_[i]);
      const double v = rule_ == "amsgrad" ? c_[i] : b_[i];
      return lr * (a_[i] / c1) / (std::sqrt(v / c2) + h("eps"));
    }
    if (rule_ == "lion") {
      const double x = b1 * a_[i] + (1.0 - b1) * g;
      a_[i] = b2 * a_[i] + (1.0 - b2) * g;
      return lr * (x > 0 ? 1.0 : (x < 0 ? -1.0 : 0.0));
    }
    if (rule_ == "sgd") {
      const double mu = h("momentum");
      a_[i] = t_ == 1 ? g : mu * a_[i] + (1.0 - h("dampening")) * g;
      if (mu == 0.0) {
        return lr * g;
      }
      return lr * (h("nesterov") != 0 ? g + mu * a_[i] : a_[i]);
    }
    if (rule_ == "adagrad") {
      a_[i] += g * g;
      return lr / (1.0 + (t_ - 1) * h("lr_decay")) * g / (std::sqrt(a_[i]) + h("eps"));
    }
    if (rule_ == "rmsprop") {
      a_[i] = h("alpha") * a_[i] + (1.0 - h("alpha")) * g * g;
      b_[i] = h("momentum") * b_[i] + g / (std::sqrt(a_[i]) + h("eps"));
      return lr * b_[i];
    }
    // ademamix
    a_[i] = b1 * a_[i] + (1.0 - b1) * g;
    b_[i] = h("beta3") * b_[i] + (1.0 - h("beta3")) * g;
    c_[i] = b2 * c_[i] + (1.0 - b2) * g * g;
    return lr * (a_[i] / c1 + h("alpha") * b_[i]) / (std::sqrt(c_[i] / c2) + h("eps"));
  }

  static double norm(const Vector& x) {
    double sum = 0.0;
    for (const double v : x) {
      sum += v * v;
    }
    return std::sqrt(sum);
  }

  void lamb(const Vector& g) {
    Vector u(w.size(), 0.0);
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (!std::isfinite(g[i])) {
        continue;  // it does not move, so it counts nothing in the update's norm
      }
      a_[i] = h("beta1") * a_[i] + (1.0 - h("beta1")) * g[i];
      b_[i] = h("beta2") * b_[i] + (1.0 - h("beta2")) * g[i] * g[i];
      const double m = a_[i] / (1.0 - std::pow(h("beta1"), t_));
      const double v = b_[i] / (1.0 - std::pow(h("beta2"), t_));
      u[i] = m / (std::sqrt(v) + h("eps")) + h("weight_decay") * w[i];
    }
    const double size = norm(w);
    const double length = norm(u);
    const double ratio = size > 0 && length > 0 ? size / length : 1.0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] -= h("learning_rate") * ratio * u[i];
    }
  }

  // Of one row the factors are the vector's own second moments: R / mean(R) is 1.
  void adafactor(Vector g) {
    std::replace_if(
        g.begin(), g.end(), [](double x) { return !std::isfinite(x); }, 0.0);
    const std::size_t columns = w.size() / rows_;
    const double b2 = 1.0 - std::pow(t_, h("decay_rate"));
    Vector row(rows_, 0.0);
    Vector column(columns, 0.0);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double square = g[i] * g[i] + h("eps");
      row[i / columns] += square / static_cast<double>(columns);
      column[i % columns] += square / static_cast<double>(rows_);
    }
    double mean = 0.0;
    for (std::size_t r = 0; r < rows_; ++r) {
      row_[r] = b2 * row_[r] + (1.0 - b2) * row[r];
      mean += row_[r] / static_cast<double>(rows_);
    }
    for (std::size_t c = 0; c < columns; ++c) {
      column_[c] = b2 * column_[c] + (1.0 - b2) * column[c];
    }
    Vector u(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      u[i] = g[i] / std::sqrt(row_[i / columns] * column_[i % columns] / mean);
    }
    const double rms = norm(u) / std::sqrt(static_cast<double>(w.size()));
    double lr = h("learning_rate");
    if (h("relative_step") != 0) {
      lr = std::min(h("warmup_init") != 0 ? 1e-6 * t_ : 1e-2,
                    1.0 / std::sqrt(static_cast<double>(t_)));
    }
    if (h("scale_parameter") != 0) {
      lr *= std::max(h("eps2"), norm(w) / std::sqrt(static_cast<double>(w.size())));
    }
    for (std::size_t i = 0; i < w.size(); ++i) {
      u[i] /= std::max(1.0, rms / h("clip_threshold"));
      a_[i] = h("beta1") * a_[i] + (1.0 - h("beta1")) * u[i];
      w[i] -= lr * h("weight_decay") * w[i] + lr * a_[i];
    }
  }

  // x y^T for row-major [m, k] and [n, k].
  static Vector outer(const Vector& x, const Vector& y, std::size_t m, std::size_t n,
                      std::size_t k) {
    Vector out(m * n, 0.0);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t l = 0; l < k; ++l) {
          out[i * n + j] += x[i * k + l] * y[j * k + l];
        }
      }
    }
    return out;
  }
  static Vector transposed(const Vector& x, std::size_t m, std::size_t n) {
    Vector out(x.size());
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        out[j * m + i] = x[i * n + j];
      }
    }
    return out;
  }

  void muon(const Vector& g) {
    std::size_t m = rows_;
    std::size_t n = w.size() / rows_;
    const double mu = h("momentum");
    Vector x(w.size(), 0.0);
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (!std::isfinite(g[i])) {
        continue;
      }
      a_[i] = mu * a_[i] + (1.0 - mu) * g[i];
      x[i] = h("nesterov") != 0 ? (1.0 - mu) * g[i] + mu * a_[i] : a_[i];
    }
    const bool tall = m > n;
    if (tall) {
      x = transposed(x, m, n);
      std::swap(m, n);
    }
    const double length = norm(x) + h("eps");
    for (double& v : x) {
      v /= length;
    }
    for (int k = 0; k < static_cast<int>(h("ns_steps")); ++k) {
      const Vector gram = outer(x, x, m, m, n);
      const Vector square = outer(gram, gram, m, m, m);  // gram is symmetric
      Vector mix(gram.size());
      for (std::size_t i = 0; i < mix.size(); ++i) {
        mix[i] = -4.7750 * gram[i] + 2.0315 * square[i];
      }
      const Vector product = outer(mix, transposed(x, m, n), m, n, m);
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = 3.4445 * x[i] + product[i];
      }
    }
    if (tall) {
      x = transposed(x, m, n);
      std::swap(m, n);
    }
    const double shape = static_cast<double>(m) / static_cast<double>(n);
    const double scale = h("match_rms") != 0 ? 0.2 * std::sqrt(static_cast<double>(std::max(m, n)))
                                             : std::sqrt(std::max(1.0, shape));
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] -= h("learning_rate") * (h("weight_decay") * w[i] + scale * x[i]);
    }
  }

  std::string rule_;
  std::map<std::string, double> h_;
  std::size_t rows_;
  Vector a_, b_, c_, row_, column_;
  int t_ = 0;
};

// The rule's defaults as the library tells them, with `changes`.
inline std::map<std::string, double> hypers_of(const std::string& rule,
                                               const std::map<std::string, double>& changes = {}) {
  std::map<std::string, double> out;
  double value = 0;
  for (int i = 0; const char* name = nibble_rule_hyper(rule.c_str(), i, &value); ++i) {
    out[name] = value;
  }
  for (const auto& [name, changed] : changes) {
    out[name] = changed;
  }
  return out;
}

inline std::vector<nibble_hyper> as_hypers(const std::map<std::string, double>& values) {
  std::vector<nibble_hyper> out;
  for (const auto& [name, value] : values) {
    out.push_back({name.c_str(), value});
  }
  return out;
}

}  // namespace nibble::test
