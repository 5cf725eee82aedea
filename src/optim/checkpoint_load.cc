// SPDX-License-Identifier: Apache-2.0
// Loading all states (FORMAT.md beside this file).
#include <algorithm>
#include <cstring>
#include <deque>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "optim/checkpoint_keys.h"
#include "optim/checkpoint_values.h"
#include "optim/device_step.h"
#include "optim/states.h"

namespace nibble::optim {
namespace {

using formats::Json;

// One parameter's arrays in a checkpoint that was verified, and how they fit.
class Loader {
 public:
  // Finds everything that could be wrong, so that load() cannot fail.
  Loader(const Json& params, const formats::SafetensorsFile& file, const Param& param)
      : file_(file),
        param_(param),
        where_(file.name() + ": parameter \"" + param.spec.name + "\"") {
    if (!params.contains(param.spec.name)) {
      refuse("it is not in the checkpoint");
    }
    saved_ = &object_member(params, param.spec.name.c_str(), where_);
    const std::string& rule = text_member(*saved_, "rule", where_);
    if (rule != this->rule().name) {
      refuse(fmt::format("rule \"{}\" was saved, this one has \"{}\"", rule, this->rule().name));
    }
    const std::int64_t count = integer_member(*saved_, "count", 0, INT64_MAX, where_);
    if (count != param.count) {
      refuse(fmt::format("{} elements were saved, this one has {}", count, param.count));
    }
    block_ = integer_member(*saved_, "block", 0, math::kMaxBlock, where_);
    shape_ = extents_member(*saved_, "shape", where_);
    check_weights();
    unset_ = saved_->contains("weights_unset") && bool_member(*saved_, "weights_unset", where_);
    for (std::size_t i = 0; i < param.arrays.size(); ++i) {
      if (state_of(param.arrays[i].name) < 0) {  // it has no other format
        require_same(param.arrays[i]);
        same_.emplace_back(i, find(param.arrays[i]));
      }
    }
    for (int s = 0; s < this->rule().states; ++s) {
      if (param.view[s].data != nullptr) {
        plan_state(s);
      }
    }
    check_states_kept();
  }

  // Floats that load() needs.
  std::int64_t scratch() const { return foreign_.empty() ? 0 : param_.count; }

  void load(Param& param, float* scratch) const {
    for (const auto& [index, tensor] : same_) {
      load_state(param, static_cast<std::int64_t>(index), tensor->bytes.data(),
                 tensor->bytes.size());
    }
    for (const Foreign& saved : foreign_) {
      if (saved.columns.empty()) {
        import_state(param, saved.state, saved.as, scratch);
        continue;
      }
      for (std::int64_t i = 0; i < param.count; ++i) {
        const int code = (saved.as.codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
        scratch[i] = math::Int4Rank1::decode_at(
            code, saved.scales[static_cast<std::size_t>(i / param.columns)],
            saved.columns[static_cast<std::size_t>(i % param.columns)]);
      }
      encode_state(param, saved.state, scratch);
    }
    param.has_extra = param.has_extra && !unset_;
  }

 private:
  // A state of another format or block.
  struct Foreign {
    int state = 0;
    ForeignState as;
    std::vector<float> scales;   // of blocks or rows; copies, since the file aligns nothing
    std::vector<float> columns;  // of rank-1 states
  };

  const math::RuleInfo& rule() const { return math::kRules[param_.rule]; }

  [[noreturn]] void refuse(const std::string& why) const {
    fail(StatusCode::kInvalidArgument, "{}: {}", where_, why);
  }

  // Part of the weights may be among the arrays; it must neither lack nor be lost.
  void check_weights() const {
    const std::string& name = text_member(*saved_, "weights", where_);
    const int index = math::find_weights(name);
    const math::WeightInfo& own = math::kWeights[param_.weights];
    const auto key = [](const math::WeightInfo& info) {
      return info.extra_name == nullptr ? "" : std::string(info.extra_name) + info.extra_dtype;
    };
    if (index < 0 || key(math::kWeights[index]) != key(own)) {
      refuse(fmt::format("weights \"{}\" were saved, this one has \"{}\"", name, own.name));
    }
  }

  // A state that was saved and has no place here would be lost.
  void check_states_kept() const {
    const Json& states = object_member(*saved_, "states", where_);
    for (const auto& [name, ignored] : states.items()) {
      if (state_of(name) < 0) {
        refuse(fmt::format("state \"{}\" was saved, and this one keeps none", name));
      }
    }
  }

  // The rule's state that an array ("exp_avg.scale") belongs to; -1 for others.
  int state_of(std::string_view array) const {
    const std::string_view state = array.substr(0, array.find('.'));
    for (int s = 0; s < rule().states; ++s) {
      if (state == rule().state[s].name && param_.view[s].data != nullptr) {
        return s;
      }
    }
    return -1;
  }

  const formats::SafeTensor* find(const StateArray& array) const {
    return file_.find(key_of(param_, array.name));
  }

  bool is_same(const StateArray& array) const {
    const formats::SafeTensor* saved = find(array);
    return saved != nullptr && saved->dtype == array.dtype &&
           saved->bytes.size() == array.memory.bytes;
  }

  void require_same(const StateArray& array) const {
    if (!is_same(array)) {
      const formats::SafeTensor* saved = find(array);
      refuse(
          fmt::format("\"{}\" has {} bytes of {}, {}", array.name, array.memory.bytes, array.dtype,
                      saved == nullptr
                          ? "and was not saved"
                          : fmt::format("{} of {} were saved", saved->bytes.size(), saved->dtype)));
    }
  }

  // Takes the state's arrays as they are if format and block are those that were saved.
  void plan_state(int s) {
    const math::StateSpec& spec = rule().state[s];
    const Json& states = object_member(*saved_, "states", where_);
    if (!states.contains(spec.name)) {
      refuse(fmt::format("state \"{}\" was not saved", spec.name));
    }
    const Json& state = object_member(states, spec.name, where_);
    const std::string& format = text_member(state, "format", where_);
    if (bool_member(state, "signed", where_) != spec.is_signed) {
      fail(StatusCode::kCorrupt, "{}: manifest: the map of \"{}\" has the wrong sign", where_,
           spec.name);
    }
    const math::FormatInfo& own = math::kFormats[param_.view[s].format];
    const bool block_matters = own.scale(spec.is_signed) == math::Scale::kBlock;
    bool same = format == own.name && (!block_matters || block_ == param_.block);
    for (const StateArray& array : param_.arrays) {
      same = same && (state_of(array.name) != s || is_same(array));
    }
    if (!same) {
      foreign_.push_back(foreign(s, format));
      return;
    }
    for (std::size_t i = 0; i < param_.arrays.size(); ++i) {
      if (state_of(param_.arrays[i].name) == s) {
        same_.emplace_back(i, find(param_.arrays[i]));
      }
    }
  }

  Foreign foreign(int s, const std::string& format) const {
    const math::StateSpec& spec = rule().state[s];
    const std::string name = spec.name;
    Foreign out;
    out.state = s;
    out.as.format = math::find_format(format);
    if (out.as.format < 0 || !math::kFormats[out.as.format].for_states) {
      refuse(fmt::format("unknown state format \"{}\"", format));
    }
    const math::FormatInfo& info = math::kFormats[out.as.format];
    out.as.codes = reinterpret_cast<const std::uint8_t*>(
        bytes_of(name, info.packed_bytes(param_.count)).data());
    const math::Scale scale = info.scale(spec.is_signed);
    if (scale == math::Scale::kBlock) {
      out.as.block = integer_member(*saved_, "block", 1, math::kMaxBlock, where_);
      out.as.n_scales = math::block_count(param_.count, block_);
      out.scales = floats_of(name + ".scale", out.as.n_scales);
      out.as.scales = out.scales.data();
    } else if (scale == math::Scale::kRank1) {
      if (shape_.size() < 2 || shape_.back() != param_.columns) {
        refuse(fmt::format("a matrix with {} columns was saved, this one has {}",
                           shape_.empty() ? 1 : shape_.back(), param_.columns));
      }
      out.scales = floats_of(name + ".row", param_.rows);
      out.columns = floats_of(name + ".column", param_.columns);
    }
    return out;
  }

  std::span<const std::byte> bytes_of(const std::string& array, std::int64_t bytes) const {
    const formats::SafeTensor* tensor = file_.find(key_of(param_, array));
    if (tensor == nullptr || tensor->bytes.size() != static_cast<std::size_t>(bytes)) {
      fail(StatusCode::kCorrupt, "{}: tensor \"{}\": {} bytes expected, {}", file_.name(),
           key_of(param_, array), bytes,
           tensor == nullptr ? "it is missing" : fmt::format("it has {}", tensor->bytes.size()));
    }
    return tensor->bytes;
  }

  std::vector<float> floats_of(const std::string& array, std::int64_t count) const {
    const auto bytes = bytes_of(array, count * static_cast<std::int64_t>(sizeof(float)));
    std::vector<float> out(static_cast<std::size_t>(count));
    if (!out.empty()) {
      std::memcpy(out.data(), bytes.data(), bytes.size());
    }
    return out;
  }

  const formats::SafetensorsFile& file_;
  const Param& param_;
  std::string where_;
  const Json* saved_ = nullptr;
  std::int64_t block_ = 0;
  std::vector<std::int64_t> shape_;
  bool unset_ = false;  // it was saved before the first bind
  std::vector<std::pair<std::size_t, const formats::SafeTensor*>> same_;
  std::vector<Foreign> foreign_;
};

void check_kind(const Json& extra, const std::string& directory) {
  const auto kind = extra.find("kind");
  // Json's own comparison with a text allocates, and is noexcept.
  if (kind == extra.end() || !kind->is_string() ||
      kind->get_ref<const std::string&>() != "optimizer") {
    fail(StatusCode::kInvalidArgument, "{}: not the checkpoint of an optimizer", directory);
  }
  if (const auto version = integer_member(extra, "version", 1, INT64_MAX, directory);
      version > kVersion) {
    fail(StatusCode::kUnsupported, "{}: optimizer states of version {}; this nibble reads up to {}",
         directory, version, kVersion);
  }
}

// What was saved and has no place here would be lost.
void check_all_wanted(const Json& params, const Optimizer& optimizer,
                      const std::string& directory) {
  std::set<std::string_view> names;
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    names.insert(optimizer.param(i).spec.name);
  }
  for (const auto& [name, ignored] : params.items()) {
    if (names.count(name) == 0) {
      fail(StatusCode::kInvalidArgument,
           "{}: parameter \"{}\" was saved, and the optimizer has none of that name", directory,
           name);
    }
  }
}

}  // namespace

void load_states(Optimizer& optimizer, const Json& extra, const formats::SafetensorsFile& file,
                 const std::string& directory) {
  check_kind(extra, directory);
  const Json& params = object_member(extra, "params", directory);
  std::vector<Loader> loaders;
  loaders.reserve(static_cast<std::size_t>(optimizer.param_count()));
  std::int64_t scratch = 0;
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    loaders.emplace_back(params, file, optimizer.param(i));
    scratch = std::max(scratch, loaders.back().scratch());
  }
  check_all_wanted(params, optimizer, directory);
  const std::int64_t step = integer_member(extra, "step", 0, Optimizer::kMaxStepCount, directory);
  std::vector<float> values(static_cast<std::size_t>(scratch));
  std::deque<HostParam> on_host;
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    on_host.emplace_back(optimizer.param(i));
  }
  // All that can fail is done; the rest only copies and converts.
  for (std::int64_t i = 0; i < optimizer.param_count(); ++i) {
    HostParam& param = on_host[static_cast<std::size_t>(i)];
    loaders[static_cast<std::size_t>(i)].load(param.mutable_param(), values.data());
    param.write_back(optimizer.param(i));
  }
  optimizer.set_step_count(step);
}

void load_checkpoint(Optimizer& optimizer, const std::string& directory) {
  const formats::Checkpoint checkpoint{os::Path(directory)};
  check_kind(checkpoint.extra(), directory);  // before a component that others lack
  load_states(optimizer, checkpoint.extra(), checkpoint.component(kComponent), directory);
}

}  // namespace nibble::optim
