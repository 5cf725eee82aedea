// SPDX-License-Identifier: Apache-2.0
// Saving and loading all states (src/optim/FORMAT.md).
#include "formats/checkpoint.h"

#include <algorithm>
#include <string>

#include "core/status.h"
#include "optim/states.h"

namespace nibble::optim {
namespace {

using formats::Json;

constexpr const char* kComponent = "optimizer";
constexpr int kVersion = 1;

std::string key_of(const Param& param, std::string_view array) {
  return param.spec.name + "/" + std::string(array);
}

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
          {"tensor_id", param.tensor_id()},
          {"states", std::move(states)}};
}

// One parameter's arrays in a checkpoint that was verified, and how they fit.
class Loader {
 public:
  Loader(const formats::Checkpoint& checkpoint, const Param& param)
      : file_(checkpoint.component(kComponent)), param_(param) {
    const Json& params = checkpoint.extra().at("params");
    const auto at = params.find(param.spec.name);
    if (at == params.end()) {
      refuse("it is not in the checkpoint");
    }
    saved_ = &*at;
    const std::string rule = saved_->at("rule");
    if (rule != math::kRules[param.rule].name) {
      refuse(fmt::format("rule \"{}\" was saved, this one has \"{}\"", rule,
                         math::kRules[param.rule].name));
    }
    if (saved_->at("count").get<std::int64_t>() != param.count) {
      refuse(fmt::format("{} elements were saved, this one has {}",
                         saved_->at("count").get<std::int64_t>(), param.count));
    }
  }

  // Everything that could be wrong, before anything is changed.
  void check() {
    for (const StateArray& array : param_.arrays) {
      if (is_same(array)) {
        continue;
      }
      const int s = state_of(array.name);
      if (s < 0) {
        refuse(fmt::format("\"{}\" of another kind was saved", array.name));
      }
      if (array.name == math::kRules[param_.rule].state[s].name) {
        const ForeignState from = foreign(s);
        if (!is_rank1(from, s)) {
          check_foreign(param_, s, from);
        }
        needs_scratch_ = true;
      }
    }
  }

  std::int64_t scratch() const { return needs_scratch_ ? param_.count : 0; }

  void load(Param& param, float* scratch) const {
    for (std::size_t i = 0; i < param.arrays.size(); ++i) {
      const StateArray& array = param.arrays[i];
      if (is_same(array)) {
        const auto bytes = file_.find(key_of(param, array.name))->bytes;
        load_state(param, static_cast<std::int64_t>(i), bytes.data(), bytes.size());
      } else if (const int s = state_of(array.name);
                 array.name == math::kRules[param.rule].state[s].name) {
        load_foreign(param, s, scratch);
      }
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(StatusCode::kInvalidArgument, "{}: parameter \"{}\": {}", file_.name(), param_.spec.name,
         why);
  }

  // The rule's state that an array ("exp_avg.scale") belongs to; -1 for others.
  int state_of(std::string_view array) const {
    const math::RuleInfo& rule = math::kRules[param_.rule];
    const std::string_view state = array.substr(0, array.find('.'));
    for (int s = 0; s < rule.states; ++s) {
      if (state == rule.state[s].name && param_.view[s].data != nullptr) {
        return s;
      }
    }
    return -1;
  }

  // The array was saved from the same format and block.
  bool is_same(const StateArray& array) const {
    const formats::SafeTensor* saved = file_.find(key_of(param_, array.name));
    const int s = state_of(array.name);
    if (saved == nullptr || saved->dtype != array.dtype ||
        saved->bytes.size() != array.memory.bytes) {
      return false;
    }
    if (s < 0) {
      return true;
    }
    const Json& state = saved_->at("states").at(math::kRules[param_.rule].state[s].name);
    const math::FormatInfo& format = math::kFormats[param_.view[s].format];
    const bool block_matters =
        format.scale(math::kRules[param_.rule].state[s].is_signed) == math::Scale::kBlock;
    return state.at("format") == format.name &&
           (!block_matters || saved_->at("block").get<std::int64_t>() == param_.block);
  }

  ForeignState foreign(int s) const {
    const math::StateSpec& spec = math::kRules[param_.rule].state[s];
    const Json& states = saved_->at("states");
    const auto state = states.find(spec.name);
    if (state == states.end()) {
      refuse(fmt::format("state \"{}\" was not saved", spec.name));
    }
    ForeignState out;
    const std::string format = state->at("format");
    out.format = math::find_format(format);
    if (out.format < 0) {
      refuse(fmt::format("unknown state format \"{}\"", format));
    }
    const math::FormatInfo& info = math::kFormats[out.format];
    out.block = saved_->at("block").get<std::int64_t>();
    out.codes = bytes_of(spec.name, info.packed_bytes(param_.count));
    if (info.scale(spec.is_signed) == math::Scale::kBlock) {
      out.n_scales = math::block_count(param_.count, std::max<std::int64_t>(out.block, 1));
      out.scales = reinterpret_cast<const float*>(
          bytes_of(std::string(spec.name) + ".scale", out.n_scales * 4));
    } else if (info.quantised) {
      bytes_of(std::string(spec.name) + ".row", param_.rows * 4);
      bytes_of(std::string(spec.name) + ".column", param_.columns * 4);
    }
    return out;
  }

  const std::uint8_t* bytes_of(const std::string& array, std::int64_t bytes) const {
    const formats::SafeTensor* tensor = file_.find(key_of(param_, array));
    if (tensor == nullptr || tensor->bytes.size() != static_cast<std::size_t>(bytes)) {
      fail(StatusCode::kCorrupt, "{}: tensor \"{}\": {} bytes expected, {}", file_.name(),
           key_of(param_, array), bytes,
           tensor == nullptr ? "it is missing" : fmt::format("it has {}", tensor->bytes.size()));
    }
    return reinterpret_cast<const std::uint8_t*>(tensor->bytes.data());
  }

  bool is_rank1(const ForeignState& from, int s) const {
    const bool is_signed = math::kRules[param_.rule].state[s].is_signed;
    return math::kFormats[from.format].scale(is_signed) == math::Scale::kRank1;
  }

  void load_foreign(Param& param, int s, float* values) const {
    const ForeignState from = foreign(s);
    if (!is_rank1(from, s)) {
      import_state(param, s, from, values);
      return;
    }
    const std::string name = math::kRules[param.rule].state[s].name;
    const auto* row = reinterpret_cast<const float*>(bytes_of(name + ".row", param.rows * 4));
    const auto* column =
        reinterpret_cast<const float*>(bytes_of(name + ".column", param.columns * 4));
    for (std::int64_t i = 0; i < param.count; ++i) {
      const int code = (from.codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
      values[i] =
          math::Int4Rank1::decode_at(code, row[i / param.columns], column[i % param.columns]);
    }
    encode_state(param, s, values);
  }

  const formats::SafetensorsFile& file_;
  const Param& param_;
  const Json* saved_ = nullptr;
  bool needs_scratch_ = false;
};

}  // namespace

void save_checkpoint(const Optimizer& optimizer, const std::string& directory) {
  std::vector<formats::SafeTensor> tensors;
  Json params = Json::object();
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    const Param& param = optimizer.param(i);
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

void load_checkpoint(Optimizer& optimizer, const std::string& directory) {
  const formats::Checkpoint checkpoint{os::Path(directory)};
  const Json& extra = checkpoint.extra();
  try {
    if (extra.at("kind") != "optimizer" || extra.at("version").get<int>() > kVersion) {
      fail(StatusCode::kUnsupported, "{}: not an optimizer's checkpoint of version {} or less",
           directory, kVersion);
    }
    std::vector<Loader> loaders;
    std::int64_t scratch = 0;
    for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
      loaders.emplace_back(checkpoint, optimizer.param(i));
      loaders.back().check();
      scratch = std::max(scratch, loaders.back().scratch());
    }
    const std::int64_t step = extra.at("step").get<std::int64_t>();
    if (step < 0) {
      fail(StatusCode::kCorrupt, "{}: manifest: step is {}", directory, step);
    }
    // All that can fail is done; the rest only copies and converts.
    std::vector<float> values(static_cast<std::size_t>(scratch));
    for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
      loaders[static_cast<std::size_t>(i)].load(optimizer.param(i), values.data());
    }
    optimizer.set_step_count(step);
  } catch (const Json::exception& error) {
    fail(StatusCode::kCorrupt, "{}: manifest: {}", directory, error.what());
  }
}

}  // namespace nibble::optim
