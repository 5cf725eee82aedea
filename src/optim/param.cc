// SPDX-License-Identifier: Apache-2.0
#include "optim/param.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "core/parallel.h"
#include "core/status.h"

namespace nibble::optim {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr std::int64_t kClearBytes = 1 << 20;
// Bytes must fit int64 in every format.
constexpr std::int64_t kMaxElements = std::numeric_limits<std::int64_t>::max() / 16;

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

void choose_format(const Options& options, Param& param) {
  const bool own = !param.spec.state_format.empty();
  const std::string& wanted = own ? param.spec.state_format : options.state_format;
  const int format = math::find_format(wanted);
  if (format < 0) {
    fail(StatusCode::kUnsupported, "parameter \"{}\": unknown state format \"{}\"", param.spec.name,
         wanted);
  }
  param.format = format;
  param.reason = own ? "asked for this parameter" : "the optimizer's format";
  if (!own && math::kFormats[format].block_wise && param.count < options.min_quantized_elements) {
    param.format = math::find_format("fp32");
    param.reason = fmt::format("fp32: fewer than {} elements", options.min_quantized_elements);
  }
  param.block = math::kFormats[param.format].block_wise ? options.block : 0;
}

StateArray make_array(std::string name, const char* dtype, std::int64_t elements,
                      std::uint64_t bytes) {
  StateArray array{std::move(name), dtype, elements, bytes, nullptr};
  array.data.reset(
      static_cast<std::byte*>(::operator new(std::max<std::size_t>(bytes, 1), kAlignment)));
  return array;
}

void fill(std::byte* data, std::uint64_t bytes, std::uint8_t value) {
  const auto total = static_cast<std::int64_t>(bytes);
  parallel_for((total + kClearBytes - 1) / kClearBytes, [=](std::int64_t chunk) {
    const std::int64_t begin = chunk * kClearBytes;
    std::memset(data + begin, value,
                static_cast<std::size_t>(std::min(kClearBytes, total - begin)));
  });
}

}  // namespace

void AlignedDelete::operator()(std::byte* p) const noexcept { ::operator delete(p, kAlignment); }

Param make_param(const Options& options, const math::RuleInfo& rule, ParamSpec spec) {
  Param param;
  param.spec = std::move(spec);
  param.count = count_elements(param.spec);
  choose_format(options, param);
  const math::FormatInfo& format = math::kFormats[param.format];
  param.arrays.reserve(2 * math::kMaxStates);
  for (int s = 0; s < rule.states; ++s) {
    const auto bytes = static_cast<std::uint64_t>(format.packed_bytes(param.count));
    param.arrays.push_back(make_array(rule.state[s].name, format.dtype, param.count, bytes));
    param.state_bytes += bytes;
    auto* data = reinterpret_cast<std::uint8_t*>(param.arrays.back().data.get());
    param.view[s] = {param.format, data, nullptr};
    if (format.block_wise) {
      const std::int64_t blocks = math::block_count(param.count, param.block);
      const auto scale_bytes = static_cast<std::uint64_t>(blocks) * sizeof(float);
      param.arrays.push_back(
          make_array(std::string(rule.state[s].name) + ".absmax", "F32", blocks, scale_bytes));
      param.state_bytes += scale_bytes;
      param.view[s].absmax = reinterpret_cast<float*>(param.arrays.back().data.get());
    }
  }
  clear_states(rule, param);
  return param;
}

void clear_states(const math::RuleInfo& rule, Param& param) {
  const math::FormatInfo& format = math::kFormats[param.format];
  const std::size_t per_state = format.block_wise ? 2 : 1;
  for (int s = 0; s < rule.states; ++s) {
    StateArray& codes = param.arrays[static_cast<std::size_t>(s) * per_state];
    fill(codes.data.get(), codes.bytes, format.zero_code(rule.state[s].is_signed));
    if (format.block_wise) {
      StateArray& absmax = param.arrays[static_cast<std::size_t>(s) * per_state + 1];
      fill(absmax.data.get(), absmax.bytes, 0);
    }
  }
}

}  // namespace nibble::optim
