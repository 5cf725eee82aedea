// SPDX-License-Identifier: Apache-2.0
// Saving all states (FORMAT.md beside this file).
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "optim/checkpoint_keys.h"
#include "optim/device_step.h"
#include "optim/states.h"

namespace nibble::optim {
namespace {

using formats::Json;

// What a reader must know of a parameter to read its arrays without this optimizer.
Json describe(const Param& param) {
  const math::RuleInfo& rule = math::kRules[param.rule];
  Json states = Json::object();
  for (int s = 0; s < rule.states; ++s) {
    if (param.view[s].data != nullptr) {
      states[rule.state[s].name] = {{"format", math::kFormats[param.view[s].format].name},
                                    {"signed", rule.state[s].is_signed}};
    }
  }
  return {{"rule", rule.name},
          {"count", param.count},
          {"shape", param.spec.shape},
          {"block", param.block},
          {"weights", math::kWeights[param.weights].name},
          {"weights_unset", math::kWeights[param.weights].adopt != nullptr && !param.has_extra},
          {"tensor_id", param.tensor_id()},
          {"states", std::move(states)}};
}

}  // namespace

void save_checkpoint(const Optimizer& optimizer, const std::string& directory) {
  std::vector<formats::SafeTensor> tensors;
  Json params = Json::object();
  std::deque<HostParam> on_host;  // alive until everything is written
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    const Param& param = *on_host.emplace_back(optimizer.param(i));
    params[param.spec.name] = describe(param);
    for (const StateArray& array : param.arrays) {
      tensors.push_back({key_of(param, array.name),
                         array.dtype,
                         {static_cast<std::uint64_t>(array.elements)},
                         {array.memory.data.get(), array.memory.bytes}});
    }
  }
  formats::CheckpointWriter writer(directory);
  writer.add_component(kComponent, tensors);
  writer.commit({{"kind", "optimizer"},
                 {"version", kVersion},
                 {"step", optimizer.step_count()},
                 {"mode", optimizer.options().mode},
                 {"seed", optimizer.options().seed},
                 {"params", std::move(params)}});
}

}  // namespace nibble::optim
