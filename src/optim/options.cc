// SPDX-License-Identifier: Apache-2.0
#include "optim/options.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/status.h"

namespace nibble::optim {
namespace {

struct ModeRow {
  const char* name;
  Mode mode;
  math::Rounding rounding;
  std::vector<std::string_view> formats;  // empty: all
};

const std::vector<ModeRow>& modes() {
  static const std::vector<ModeRow> kRows = {
      {"default", Mode::kDefault, math::Rounding::kSafe, {}},
      {"torch", Mode::kTorch, math::Rounding::kSafe, {"fp32"}},
      {"torchao", Mode::kTorchao, math::Rounding::kTorchao, {"fp32", "fp8", "int8", "int4"}},
      {"bnb", Mode::kBnb, math::Rounding::kNearest, {"fp32", "int8"}},
      {"bnb-cuda", Mode::kBnbCuda, math::Rounding::kBnbCuda, {"fp32", "int8"}}};
  return kRows;
}

const ModeRow& row_of(Mode mode) {
  return *std::find_if(modes().begin(), modes().end(),
                       [&](const ModeRow& row) { return row.mode == mode; });
}

std::string quoted_list(const std::vector<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) {
    out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", name);
  }
  return out;
}

template <class Rows>
std::string names_of(const Rows& rows) {
  std::vector<std::string_view> names;
  names.reserve(std::size(rows));
  for (const auto& row : rows) {
    names.emplace_back(row.name);
  }
  return quoted_list(names);
}

int find_state_format(std::string_view name, const std::string& who) {
  const int format = math::find_format(name);
  if (format < 0 || !math::kFormats[format].for_states) {
    fail(StatusCode::kUnsupported, "{}: unknown state format \"{}\"", who, name);
  }
  return format;
}

}  // namespace

Mode find_mode(const std::string& name) {
  for (const ModeRow& row : modes()) {
    if (name == row.name) {
      return row.mode;
    }
  }
  fail(StatusCode::kUnsupported, "unknown mode \"{}\"; there are {}", name, names_of(modes()));
}

math::Rounding rounding_of(Mode mode) { return row_of(mode).rounding; }

void check_mode_format(Mode mode, const std::string& mode_name, int format,
                       const std::string& who) {
  const auto& formats = row_of(mode).formats;
  const std::string_view name = math::kFormats[format].name;
  if (!formats.empty() && std::find(formats.begin(), formats.end(), name) == formats.end()) {
    fail(StatusCode::kUnsupported, "{}: mode \"{}\" has {} states only, not \"{}\"", who, mode_name,
         quoted_list(formats), name);
  }
}

void check_block(std::int64_t block) {
  if (block < math::kMinBlock || block > math::kMaxBlock ||
      !std::has_single_bit(static_cast<std::uint64_t>(block))) {
    fail(StatusCode::kInvalidArgument, "block_size is {}: a power of two in {} .. {} expected",
         block, math::kMinBlock, math::kMaxBlock);
  }
}

backend::Form form_of(const math::RuleInfo& rule, Mode mode, const std::string& decay) {
  if (!decay.empty() && decay != "before" && decay != "after") {
    fail(StatusCode::kUnsupported, "decay \"{}\"; there are \"before\", \"after\"", decay);
  }
  if (rule.decay == math::Decay::kIntoGradient) {
    if (!decay.empty()) {
      fail(StatusCode::kUnsupported, "decay \"{}\": rule \"{}\" adds its decay to the gradient",
           decay, rule.name);
    }
    return backend::Form::kDecayIntoGradient;
  }
  if (rule.kind == math::RuleKind::kTrustRatio) {
    if (decay == "after") {
      fail(StatusCode::kUnsupported, "decay \"after\": rule \"{}\" decays within its trust ratio",
           rule.name);
    }
    return backend::Form::kDecayBefore;  // in every mode
  }
  const bool after = decay.empty() ? mode == Mode::kBnbCuda : decay == "after";
  return after ? backend::Form::kDecayAfter : backend::Form::kDecayBefore;
}

int find_rule(const std::string& name) {
  const int rule = math::find_rule(name);
  if (rule < 0) {
    fail(StatusCode::kUnsupported, "unknown rule \"{}\"; there are {}", name,
         names_of(math::kRules));
  }
  return rule;
}

std::vector<double> default_hypers(const math::RuleInfo& rule) {
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(rule.hypers));
  for (int i = 0; i < rule.hypers; ++i) {
    out.push_back(rule.hyper[i].value);
  }
  return out;
}

int find_hyper(const math::RuleInfo& rule, std::string_view name) {
  std::vector<std::string_view> known;
  for (int i = 0; i < rule.hypers; ++i) {
    if (name == rule.hyper[i].name) {
      return i;
    }
    known.emplace_back(rule.hyper[i].name);
  }
  fail(StatusCode::kInvalidArgument, "unknown hyper-parameter \"{}\"; rule \"{}\" has {}", name,
       rule.name, quoted_list(known));
}

void check_float(std::string_view name, double value) {
  const auto narrow = static_cast<float>(value);
  if (!std::isfinite(narrow) || (narrow == 0.0F && value != 0.0)) {
    fail(StatusCode::kInvalidArgument, "{} is {}: not a number of float's range", name, value);
  }
}

void check_hyper(const math::HyperSpec& spec, double value) {
  if (value >= spec.low && value <= spec.high) {  // false for NaN
    check_float(spec.name, value);
    if (spec.whole && value != std::floor(value)) {
      fail(StatusCode::kInvalidArgument, "{} is {}: a whole number expected", spec.name, value);
    }
    return;
  }
  const std::string low = fmt::format("{} <= {}", spec.low, spec.name);
  if (spec.high == math::kAnyFinite) {
    fail(StatusCode::kInvalidArgument, "{} is {}: a finite number >= {} expected", spec.name, value,
         spec.low);
  }
  const bool below_one = spec.high == math::kBelowOne;
  fail(StatusCode::kInvalidArgument, "{} is {}: {} {} expected", spec.name, value, low,
       below_one ? "< 1" : fmt::format("<= {}", spec.high));
}

void set_hypers(const math::RuleInfo& rule, const HyperValues& values, std::vector<double>& out) {
  for (const auto& [name, value] : values) {
    const int i = find_hyper(rule, name);
    check_hyper(rule.hyper[i], value);
    out[static_cast<std::size_t>(i)] = value;
  }
}

std::vector<int> parse_formats(const math::RuleInfo& rule, const std::string& text,
                               const std::string& who) {
  const auto states = static_cast<std::size_t>(rule.states);
  if (text.find('=') == std::string::npos) {
    return std::vector<int>(states, find_state_format(text, who));
  }
  std::vector<int> out(states, math::find_format("fp32"));
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = std::string_view(text).substr(begin, end - begin);
    const std::size_t equals = std::min(item.find('='), item.size());
    const std::string_view state = item.substr(0, equals);
    std::size_t s = 0;
    while (s < states && state != rule.state[s].name) {
      ++s;
    }
    if (s == states || equals == item.size()) {
      fail(StatusCode::kUnsupported, "{}: state format \"{}\": rule \"{}\" has no state \"{}\"",
           who, text, rule.name, state);
    }
    out[s] = find_state_format(item.substr(equals + 1), who);
    begin = end + 1;
  }
  return out;
}

std::vector<int> parse_formats_of_any(int first, const std::string& text, const std::string& who) {
  try {
    return parse_formats(math::kRules[first], text, who);
  } catch (const Error&) {
    for (const math::RuleInfo& rule : math::kRules) {
      try {
        return parse_formats(rule, text, who);
      } catch (const Error&) {
        continue;
      }
    }
    throw;
  }
}

bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string_view::npos;
  std::size_t resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {  // let the last star take one more
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') {
    ++p;
  }
  return p == pattern.size();
}

}  // namespace nibble::optim
