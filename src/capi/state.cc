// SPDX-License-Identifier: Apache-2.0
// nibble.h: what a parameter got, and its states.
#include "capi/guard.h"

using nibble::capi::guard;
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
    info.state_format = math::kFormats[p.format].name;
    info.reason = p.reason.c_str();
    info.count = p.count;
    info.block_size = p.block;
    info.state_bytes = p.state_bytes;
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
    const nibble::optim::StateArray& array = opt->rep.state(param, state);
    nibble_state_info info{};
    info.name = array.name.c_str();
    info.dtype = array.dtype;
    info.count = array.elements;
    info.bytes = array.bytes;
    info.data = array.data.get();
    write_info(out, sizeof(nibble_state_info), "state info", info);
  });
}

nibble_status nibble_optimizer_load_state(nibble_optimizer* opt, std::int64_t param,
                                          std::int64_t state, const void* data,
                                          std::uint64_t bytes) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(data, "data");
    opt->rep.load_state(param, state, data, bytes);
  });
}
