// SPDX-License-Identifier: Apache-2.0
#include "optim/param.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>

#include "core/parallel.h"
#include "core/status.h"

namespace nibble::optim {
namespace {

using math::Scale;

constexpr std::align_val_t kAlignment{64};
constexpr std::int64_t kClearBytes = 1 << 20;
// Bytes must fit int64 in every format.
constexpr std::int64_t kMaxElements = std::numeric_limits<std::int64_t>::max() / 16;
constexpr std::int64_t kRange = 1 << 16;  // a multiple of every block
static_assert(kRange % math::kMaxBlock == 0);
// Ranges of rank-1 states are larger, since each has maxima of all columns: with this many rows
// these are a few hundredths of the states.
constexpr std::int64_t kRank1Range = 1 << 18;
constexpr std::int64_t kRank1Rows = 128;
constexpr std::int64_t kBlockWithoutScales = 1024;

// Each thread touches the pages that it will later work on.
void fill(const Buffer64& memory, std::uint8_t value) {
  if (memory.device() != nullptr) {
    memory.device()->fill(memory.data.get(), value, memory.bytes);
    return;
  }
  const auto total = static_cast<std::int64_t>(memory.bytes);
  std::byte* data = memory.data.get();
  parallel_for(math::block_count(total, kClearBytes), [=](std::int64_t chunk) {
    const std::int64_t begin = chunk * kClearBytes;
    std::memset(data + begin, value,
                static_cast<std::size_t>(std::min(kClearBytes, total - begin)));
  });
}

float* add_floats(Param& param, std::string name, std::int64_t count) {
  const auto bytes = static_cast<std::uint64_t>(count) * sizeof(float);
  Buffer64 memory = Buffer64::of(bytes, param.device, name);
  param.arrays.push_back({std::move(name), "F32", count, std::move(memory)});
  param.state_bytes += bytes;
  fill(param.arrays.back().memory, 0);
  return param.arrays.back().memory.as<float>();
}

bool is_matrix(const Param& param) { return param.rows > 1 && param.columns > 1; }

// Whether the second moment is kept as moments of rows and columns.
bool is_factored(const Param& param) {
  return math::kRules[param.rule].kind == math::RuleKind::kFactored && is_matrix(param);
}

void add_scales(Param& param, const math::StateSpec& state, backend::StateView& view, Scale scale) {
  const std::string name = state.name;
  if (scale == Scale::kBlock) {
    view.scale = add_floats(param, name + ".scale", math::block_count(param.count, param.block));
  } else if (scale == Scale::kRank1) {
    view.rank1.row = add_floats(param, name + ".row", param.rows);
    view.rank1.column = add_floats(param, name + ".column", param.columns);
    param.rank1 = true;
  }
}

void add_state(Param& param, int s, int format) {
  const math::StateSpec& state = math::kRules[param.rule].state[s];
  const math::FormatInfo& info = math::kFormats[format];
  const std::int64_t bytes = info.packed_bytes(param.count);
  const std::int64_t items = bytes / std::max(info.bits / 8, 1);
  param.arrays.push_back(
      {state.name, info.dtype, items,
       Buffer64::of(static_cast<std::uint64_t>(bytes), param.device, state.name)});
  param.state_bytes += static_cast<std::uint64_t>(bytes);
  fill(param.arrays.back().memory, info.zero_byte(state.is_signed));
  backend::StateView& view = param.view[s];
  view.format = format;
  view.data = param.arrays.back().memory.as<std::uint8_t>();
  add_scales(param, state, view, info.scale(state.is_signed));
}

void add_extra_weights(Param& param) {
  const math::WeightInfo& info = math::kWeights[param.weights];
  if (info.extra_name == nullptr) {
    return;
  }
  const auto bytes =
      static_cast<std::uint64_t>(param.count) * static_cast<std::uint64_t>(info.extra_bits / 8);
  param.arrays.push_back({info.extra_name, info.extra_dtype, param.count,
                          Buffer64::of(bytes, param.device, info.extra_name)});
  param.state_bytes += bytes;
  fill(param.arrays.back().memory, 0);
  param.weight_view.extra = param.arrays.back().memory.as<std::uint8_t>();
}

// Rank-1 scales need a matrix.
int usable_format(const Param& param, int format) {
  const bool rank1 = math::kFormats[format].unsigned_scale == Scale::kRank1;
  return rank1 && !is_matrix(param) ? math::find_format("int4") : format;
}

std::int64_t choose_block(const Options& options, const Param& param,
                          const std::vector<int>& formats, const std::vector<bool>& present) {
  std::int64_t block = math::kWeights[param.weights].has_scale ? 256 : 0;
  for (std::size_t s = 0; s < formats.size(); ++s) {
    const math::FormatInfo& info = math::kFormats[formats[s]];
    const bool is_signed = math::kRules[param.rule].state[s].is_signed;
    if (present[s] && info.scale(is_signed) == Scale::kBlock) {
      block = block == 0 ? info.default_block : std::min(block, info.default_block);
    }
  }
  return block != 0 && options.block != 0 ? options.block : block;
}

// Rows of a rank-1 parameter's ranges are not shared, and ranges begin with a block.
std::int64_t choose_range(const Param& param) {
  if (!param.rank1) {
    return kRange;
  }
  const std::int64_t block = param.task_block();
  const std::int64_t unit = std::lcm(param.columns, block);
  const std::int64_t wanted = std::max(kRank1Range, kRank1Rows * param.columns);
  return math::block_count(wanted, unit) * unit;
}

void add_rank1_scratch(Param& param) {
  if (!param.rank1) {
    return;
  }
  const std::int64_t ranges = math::block_count(param.count, param.range);
  const auto states = std::count_if(std::begin(param.view), std::end(param.view),
                                    [](const auto& view) { return view.rank1.row != nullptr; });
  const auto floats = [](std::int64_t n) { return static_cast<std::uint64_t>(n) * sizeof(float); };
  param.next_scales = Buffer64::of(floats(states * (param.rows + param.columns)), param.device,
                                   "rank-1 scales after a step");
  fill(param.next_scales, 0);
  if (param.device == nullptr) {  // a device raises the scales in place
    param.column_maxima = Buffer64::of(floats(states * ranges * param.columns));
    fill(param.column_maxima, 0);
  }
  float* next = param.next_scales.as<float>();
  for (backend::StateView& view : param.view) {
    if (view.rank1.row != nullptr) {
      view.rank1.next_row = next;
      view.rank1.next_column = next + param.rows;
      next += param.rows + param.columns;
    }
  }
}

// A state that is not there has no format, but for a factored one, which other arrays stand for.
std::string describe(const Param& param, const std::vector<int>& formats,
                     const std::vector<bool>& present) {
  const math::RuleInfo& rule = math::kRules[param.rule];
  std::string list;
  bool same = true;
  int first = -1;
  for (std::size_t s = 0; s < formats.size(); ++s) {
    if (present[s]) {
      first = first < 0 ? formats[s] : first;
      same = same && formats[s] == first;
      list += fmt::format("{}{}={}", list.empty() ? "" : ",", rule.state[s].name,
                          math::kFormats[formats[s]].name);
    }
  }
  if (is_factored(param)) {
    return fmt::format("{}{}exp_avg_sq=factored", list, list.empty() ? "" : ",");
  }
  return first < 0 ? "none" : (same ? math::kFormats[first].name : list);
}

void set_dtypes(const Options& options, Param& param) {
  const std::string& wanted =
      param.spec.weight_format.empty() ? options.weight_format : param.spec.weight_format;
  param.weights = math::find_weights(wanted);
  if (param.weights < 0) {
    fail(StatusCode::kUnsupported, "parameter \"{}\": unknown weight format \"{}\"",
         param.spec.name, wanted);
  }
  param.weight_view.format = param.weights;
  const std::string own = math::kWeights[param.weights].dtype;
  const std::string& grads = param.spec.grad_dtype;
  if (!grads.empty() && grads != "F32" && grads != "BF16") {
    fail(StatusCode::kUnsupported,
         "parameter \"{}\": gradients of dtype \"{}\"; F32 or BF16 expected", param.spec.name,
         grads);
  }
  param.grads_are_bf16 = (grads.empty() ? own : grads) == "BF16";
}

void set_shape(Param& param) {
  param.count = count_elements(param.spec);
  const auto& shape = param.spec.shape;
  param.columns = shape.size() < 2 ? param.count : shape.back();
  param.rows = param.columns > 0 ? param.count / param.columns : 0;
}

// Which states exist: some only with their hyper-parameter, and a matrix's second moment under
// adafactor is factored.
std::vector<bool> present_states(const Param& param, const std::vector<double>& hyper) {
  const math::RuleInfo& rule = math::kRules[param.rule];
  std::vector<bool> out;
  for (int s = 0; s < rule.states; ++s) {
    const int needs = rule.state[s].needs;
    const bool factored = is_factored(param) && !rule.state[s].is_signed;
    out.push_back((needs < 0 || hyper[static_cast<std::size_t>(needs)] != 0) && !factored);
  }
  return out;
}

}  // namespace

void MemoryDelete::operator()(std::byte* p) const noexcept {
  if (device != nullptr) {
    device->release(p);
  } else {
    ::operator delete(p, kAlignment);
  }
}

Buffer64 Buffer64::of(std::uint64_t bytes, backend::Device* device, std::string_view purpose) {
  Buffer64 out;
  if (device != nullptr) {
    out.data = {device->allocate(backend::MemoryKind::kDevice, bytes, purpose),
                MemoryDelete{device}};
  } else {
    out.data.reset(
        static_cast<std::byte*>(::operator new(std::max<std::size_t>(bytes, 1), kAlignment)));
  }
  out.bytes = bytes;
  return out;
}

std::int64_t Param::task_block() const { return block > 0 ? block : kBlockWithoutScales; }

std::uint32_t Param::tensor_id() const {
  return spec.tensor_id != 0 ? spec.tensor_id : math::tensor_id(spec.name.c_str());
}

std::int64_t count_elements(const ParamSpec& spec) {
  std::int64_t count = 1;
  for (const std::int64_t extent : spec.shape) {
    if (extent < 0) {
      fail(StatusCode::kInvalidArgument, "parameter \"{}\": negative extent {}", spec.name, extent);
    }
    if (extent != 0 && count > kMaxElements / extent) {
      fail(StatusCode::kInvalidArgument, "parameter \"{}\": too many elements", spec.name);
    }
    count *= extent;
  }
  return count;
}

FormatChoice choose_formats(const Options& options,
                            const std::vector<std::pair<std::string, std::string>>& patterns,
                            const ParamSpec& spec, std::int64_t count) {
  if (!spec.state_format.empty()) {
    return {spec.state_format, "asked for this parameter"};
  }
  for (auto it = patterns.rbegin(); it != patterns.rend(); ++it) {
    if (matches(it->first, spec.name)) {
      return {it->second, fmt::format("pattern \"{}\"", it->first)};
    }
  }
  if (options.state_format != "fp32") {
    if (count < options.min_quantized_elements) {
      return {"fp32", fmt::format("fp32: fewer than {} elements", options.min_quantized_elements)};
    }
    std::string lower = spec.name;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const char* part : {"norm", "embed", "ln_", "wte", "wpe"}) {
      if (lower.find(part) != std::string::npos) {
        return {"fp32", fmt::format("fp32: a norm or an embedding by its name (\"{}\")", part)};
      }
    }
  }
  return {options.state_format, "the optimizer's format"};
}

Param make_param(const Options& options, Mode mode, const FormatChoice& choice, int rule_index,
                 const std::vector<double>& hyper, ParamSpec spec) {
  const math::RuleInfo& rule = math::kRules[rule_index];
  Param param;
  param.spec = std::move(spec);
  param.rule = rule_index;
  param.device = options.device;
  set_shape(param);
  set_dtypes(options, param);
  const std::string who = fmt::format("parameter \"{}\"", param.spec.name);
  if (rule.kind == math::RuleKind::kOrthogonal && param.spec.shape.size() < 2) {
    fail(StatusCode::kUnsupported,
         "{}: rule \"{}\" is for matrices; put it into a group with another rule", who, rule.name);
  }
  std::vector<int> formats = parse_formats(rule, choice.text, who);
  param.reason = choice.reason;
  for (int& format : formats) {
    check_mode_format(mode, options.mode, format, who);
    const int usable = usable_format(param, format);
    if (usable != format) {
      param.reason += "; not a matrix, so block scales";
    }
    format = usable;
  }
  if (rule.kind == math::RuleKind::kFactored) {  // the second moment, in src/optim/factored.cc
    const int fp32 = math::find_format("fp32");
    if (is_factored(param)) {
      param.reason += "; the second moment is factored into fp32 moments of rows and columns";
    } else if (formats[1] != fp32) {
      param.reason += "; not a matrix, so the second moment is whole and fp32";
    }
    formats[1] = fp32;
  }
  const std::vector<bool> present = present_states(param, hyper);
  param.block = choose_block(options, param, formats, present);
  param.arrays.reserve(3 * math::kMaxStates + 3);
  for (int s = 0; s < rule.states; ++s) {
    if (present[static_cast<std::size_t>(s)]) {
      add_state(param, s, formats[static_cast<std::size_t>(s)]);
    }
  }
  if (is_factored(param)) {
    param.factored_row = add_floats(param, "exp_avg_sq_row", param.rows);
    param.factored_column = add_floats(param, "exp_avg_sq_col", param.columns);
  }
  add_extra_weights(param);
  param.formats = describe(param, formats, present);
  param.range = choose_range(param);
  add_rank1_scratch(param);
  return param;
}

}  // namespace nibble::optim
