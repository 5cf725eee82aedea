// SPDX-License-Identifier: Apache-2.0
// nibble.h: what a parameter got, and its states.
#include <cmath>
#include <vector>

#include "capi/guard.h"
#include "optim/device_step.h"
#include "optim/states.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::guard;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::write_info;
namespace math = nibble::math;

nibble_status nibble_optimizer_param_count(const nibble_optimizer* opt,
                                           std::int64_t* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(out, "out");
    *out = opt->rep.param_count();
  });
}

nibble_status nibble_optimizer_param_info(const nibble_optimizer* opt, std::int64_t param,
                                          nibble_param_info* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    const nibble::optim::Param& p = opt->rep.param(param);
    nibble_param_info info{};
    info.n_states = static_cast<std::uint32_t>(p.arrays.size());
    info.name = p.spec.name.c_str();
    info.state_format = p.formats.c_str();
    info.reason = p.reason.c_str();
    info.count = p.count;
    info.block_size = p.block;
    info.state_bytes = p.state_bytes;
    info.weight_format = math::kWeights[p.weights].name;
    info.rule = math::kRules[p.rule].name;
    info.group = p.spec.group;
    info.placement = p.device != nullptr ? p.device->name().c_str() : "host";
    write_info(out, sizeof(nibble_param_info), "parameter info", info);
  });
}

nibble_status nibble_optimizer_state_count(const nibble_optimizer* opt, std::int64_t param,
                                           std::int64_t* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(out, "out");
    *out = static_cast<std::int64_t>(opt->rep.param(param).arrays.size());
  });
}

nibble_status nibble_optimizer_state_info(const nibble_optimizer* opt, std::int64_t param,
                                          std::int64_t state, nibble_state_info* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    const nibble::optim::Param& p = opt->rep.param(param);
    const nibble::optim::StateArray& array = nibble::optim::state_array(p, state);
    const char* extra = math::kWeights[p.weights].extra_name;
    nibble_state_info info{};
    info.is_unset = extra != nullptr && array.name == extra && !p.has_extra ? 1 : 0;
    info.name = array.name.c_str();
    info.dtype = array.dtype;
    info.count = array.elements;
    info.bytes = array.memory.bytes;
    info.data = array.memory.data.get();
    write_info(out, sizeof(nibble_state_info), "state info", info);
  });
}

nibble_status nibble_optimizer_load_state(nibble_optimizer* opt, std::int64_t param,
                                          std::int64_t state, const void* data,
                                          std::uint64_t bytes) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(data, "data");
    nibble::optim::load_state(opt->rep.param(param), state, data, bytes);
  });
}

nibble_status nibble_optimizer_workspace_bytes(const nibble_optimizer* opt,
                                               std::uint64_t* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(out, "out");
    *out = opt->rep.workspace_bytes();
  });
}

nibble_status nibble_optimizer_state_error(const nibble_optimizer* opt, std::int64_t param,
                                           std::int64_t state, nibble_state_error* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    const nibble::optim::Param& p = opt->rep.param(param);
    const math::RuleInfo& rule = math::kRules[p.rule];
    const auto& stats = opt->rep.stats();
    if (stats.size() <= static_cast<std::size_t>(param)) {
      fail(StatusCode::kWrongOrder, "no step with collect_errors since parameter {} was added",
           param);
    }
    if (state < 0 || state >= rule.states) {
      fail(StatusCode::kInvalidArgument, "no state {}: rule \"{}\" has {}", state, rule.name,
           rule.states);
    }
    if (p.view[state].data == nullptr) {
      fail(StatusCode::kInvalidArgument, "parameter \"{}\" keeps no state \"{}\" of its own format",
           p.spec.name, rule.state[state].name);
    }
    const nibble::backend::StepStats& of = stats[static_cast<std::size_t>(param)];
    nibble_state_error error{};
    error.state = rule.state[state].name;
    error.format = math::kFormats[p.view[state].format].name;
    error.relative_rms =
        of.squares[state] > 0 ? std::sqrt(of.error_squares[state] / of.squares[state]) : 0.0;
    error.largest = of.largest_error[state];
    error.lost = of.lost[state];
    write_info(out, sizeof(nibble_state_error), "state error", error);
  });
}

nibble_status nibble_optimizer_import_state(nibble_optimizer* opt, std::int64_t param,
                                            const nibble_import_desc* desc) noexcept {
  return guard([&] {
    require(opt, "opt");
    const auto d = read_desc(desc, sizeof(nibble_import_desc), "import descriptor");
    require(d.state, "import descriptor: state");
    require(d.format, "import descriptor: format");
    nibble::optim::Param& p = opt->rep.param(param);
    const int state = nibble::optim::find_state(p, d.state);
    nibble::optim::ForeignState from;
    from.format = math::find_format(d.format);
    if (from.format < 0 || !math::kFormats[from.format].for_states) {
      fail(StatusCode::kUnsupported, "import of \"{}\": unknown state format \"{}\"", d.state,
           d.format);
    }
    if (p.count > 0) {
      require(d.codes, "import descriptor: codes");
    }
    from.low_nibble_first = d.low_nibble_first != 0;
    from.codes = static_cast<const std::uint8_t*>(d.codes);
    from.scales = d.scales;
    from.n_scales = d.n_scales;
    from.block = d.block_size;
    from.map = d.map;
    nibble::optim::check_foreign(p, state, from);
    const bool scratch = nibble::optim::needs_scratch(p, state, from);
    std::vector<float> values(scratch ? static_cast<std::size_t>(p.count) : 0);
    nibble::optim::HostParam on_host(p);
    nibble::optim::import_state(on_host.mutable_param(), state, from, values.data());
    on_host.write_back(p);
  });
}

nibble_status nibble_optimizer_export_state(const nibble_optimizer* opt, std::int64_t param,
                                            const char* state, float* dst) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(state, "state");
    const nibble::optim::Param& p = opt->rep.param(param);
    if (p.count > 0) {
      require(dst, "dst");
    }
    const nibble::optim::HostParam on_host(p);
    nibble::optim::export_state(*on_host, nibble::optim::find_state(p, state), dst);
  });
}

nibble_status nibble_optimizer_save(const nibble_optimizer* opt, const char* directory) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(directory, "directory");
    nibble::optim::save_checkpoint(opt->rep, directory);
  });
}

nibble_status nibble_optimizer_load(nibble_optimizer* opt, const char* directory) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(directory, "directory");
    nibble::optim::load_checkpoint(opt->rep, directory);
  });
}
