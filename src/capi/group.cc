// SPDX-License-Identifier: Apache-2.0
// nibble.h: groups, hyper-parameters and formats by pattern.
#include "capi/guard.h"

using nibble::capi::guard;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::text_or;
namespace math = nibble::math;

const char* nibble_rule_hyper(const char* rule, std::int32_t i, double* out_default) noexcept {
  const int index = rule != nullptr ? math::find_rule(rule) : -1;
  if (index < 0 || i < 0 || i >= math::kRules[index].hypers) {
    return nullptr;
  }
  if (out_default != nullptr) {
    *out_default = math::kRules[index].hyper[i].value;
  }
  return math::kRules[index].hyper[i].name;
}

nibble_status nibble_optimizer_add_group(nibble_optimizer* opt, const nibble_group_desc* desc,
                                         std::int64_t* out_group) noexcept {
  return guard([&] {
    require(opt, "opt");
    const auto d = read_desc(desc, sizeof(nibble_group_desc), "group descriptor");
    nibble::capi::check_reserved(d.reserved, "group descriptor");
    const std::int64_t group =
        opt->rep.add_group(text_or(d.rule, ""), nibble::capi::hyper_values(d.hypers, d.n_hypers));
    if (out_group != nullptr) {
      *out_group = group;
    }
  });
}

nibble_status nibble_optimizer_set_format(nibble_optimizer* opt, const char* pattern,
                                          const char* state_format) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(pattern, "pattern");
    require(state_format, "state_format");
    opt->rep.add_format_pattern(pattern, state_format);
  });
}

nibble_status nibble_optimizer_set_group_hyper(nibble_optimizer* opt, std::int64_t group,
                                               const char* name, double value) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(name, "name");
    opt->rep.set_hyper(group, name, value);
  });
}

nibble_status nibble_optimizer_get_group_hyper(const nibble_optimizer* opt, std::int64_t group,
                                               const char* name, double* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(name, "name");
    require(out, "out");
    *out = opt->rep.hyper(group, name);
  });
}

nibble_status nibble_optimizer_set_hyper(nibble_optimizer* opt, const char* name,
                                         double value) noexcept {
  return nibble_optimizer_set_group_hyper(opt, 0, name, value);
}

nibble_status nibble_optimizer_get_hyper(const nibble_optimizer* opt, const char* name,
                                         double* out) noexcept {
  return nibble_optimizer_get_group_hyper(opt, 0, name, out);
}

nibble_status nibble_optimizer_set_learning_rate(nibble_optimizer* opt, double value) noexcept {
  return nibble_optimizer_set_group_hyper(opt, 0, "learning_rate", value);
}
