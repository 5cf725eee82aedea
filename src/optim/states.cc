// SPDX-License-Identifier: Apache-2.0
#include "optim/states.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/float_environment.h"
#include "core/parallel.h"
#include "core/status.h"
#include "optim/quantize.h"

namespace nibble::optim {
namespace {

using math::Scale;

bool is_signed(const Param& param, int state) {
  return math::kRules[param.rule].state[state].is_signed;
}

template <class Body>
void for_each_piece(std::int64_t count, const Body& body) {
  constexpr std::int64_t kPiece = 1 << 16;
  parallel_for(math::block_count(count, kPiece), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    body(i * kPiece, std::min((i + 1) * kPiece, count));
  });
}

std::int64_t derive_block(const ForeignState& from, std::int64_t count) {
  if (from.block > 0) {
    return from.block;
  }
  std::int64_t block = 1;
  while (block < count && math::block_count(count, block) > from.n_scales) {
    block *= 2;
  }
  return block;
}

// Values by code: the caller's map or the format's own.
std::array<float, 256> foreign_map(const ForeignState& from, bool is_signed) {
  std::array<float, 256> map = map_values(from.format, is_signed);
  if (from.map != nullptr) {
    std::copy(from.map, from.map + (math::kFormats[from.format].bits == 4 ? 16 : 256), map.begin());
  }
  return map;
}

// Bits, since fp8 has NaN.
bool same_map(const std::array<float, 256>& a, const std::array<float, 256>& b) {
  return std::equal(a.begin(), a.end(), b.begin(),
                    [](float x, float y) { return math::bits_of(x) == math::bits_of(y); });
}

// The same codes would come out: same format, map, block and nibble order.
bool is_own_layout(const Param& param, int state, const ForeignState& from) {
  const backend::StateView& view = param.view[state];
  const math::FormatInfo& info = math::kFormats[view.format];
  if (view.format != from.format || (from.low_nibble_first && info.bits == 4)) {
    return false;
  }
  if (!info.quantised) {
    return true;
  }
  const bool sign = is_signed(param, state);
  return info.scale(sign) == Scale::kBlock && derive_block(from, param.count) == param.block &&
         same_map(foreign_map(from, sign), map_values(from.format, sign));
}

void decode_foreign(const ForeignState& from, const std::array<float, 256>& map, std::int64_t block,
                    std::int64_t first, std::int64_t last, float* out) {
  const bool nibbles = math::kFormats[from.format].bits == 4;
  for (std::int64_t i = first; i < last; ++i) {
    std::size_t code = 0;
    if (nibbles) {
      const bool high = (i % 2 == 0) != from.low_nibble_first;
      code = (from.codes[i / 2] >> (high ? 4 : 0)) & 15U;
    } else {
      code = from.codes[i];
    }
    const float scale = from.scales[i / block];
    // torchao and bitsandbytes begin with codes that are not zero and scales that are.
    out[i] = scale == 0.0F ? 0.0F : map[code] * scale;
  }
}

void decode_all(const Param& param, int state, const ForeignState& from, float* values) {
  const math::FormatInfo& info = math::kFormats[from.format];
  if (!info.quantised) {
    for_each_piece(param.count, [&](std::int64_t first, std::int64_t last) {
      if (info.decode == nullptr) {
        std::memcpy(values + first, from.codes + first * 4,
                    static_cast<std::size_t>(last - first) * sizeof(float));
      } else {
        info.decode(true, from.codes + info.packed_bytes(first), nullptr, last - first,
                    values + first);
      }
    });
    return;
  }
  const auto map = foreign_map(from, is_signed(param, state));
  const std::int64_t block = derive_block(from, param.count);
  for_each_piece(param.count, [&](std::int64_t first, std::int64_t last) {
    decode_foreign(from, map, block, first, last, values);
  });
}

// New rank-1 scales from the values.
void set_rank1_scales(const Param& param, int state, const float* values) {
  const backend::Rank1Scales& scales = param.view[state].rank1;
  std::fill(scales.next_row, scales.next_row + param.rows, 0.0F);
  std::fill(scales.next_column, scales.next_column + param.columns, 0.0F);
  for (std::int64_t r = 0; r < param.rows; ++r) {
    for (std::int64_t c = 0; c < param.columns; ++c) {
      const float value = math::saturated(values[r * param.columns + c]);
      scales.next_row[r] = math::max(value, scales.next_row[r]);
      scales.next_column[c] = math::max(value, scales.next_column[c]);
    }
  }
  std::copy(scales.next_row, scales.next_row + param.rows, const_cast<float*>(scales.row));
  std::copy(scales.next_column, scales.next_column + param.columns,
            const_cast<float*>(scales.column));
}

void encode_rank1(const Param& param, int state, const float* values) {
  set_rank1_scales(param, state, values);
  const backend::StateView& view = param.view[state];
  std::memset(view.data, 0, static_cast<std::size_t>(param.count / 2 + param.count % 2));
  for (std::int64_t i = 0; i < param.count; ++i) {
    const int code =
        math::Int4Rank1::encode_at(math::saturated(values[i]), view.rank1.row[i / param.columns],
                                   view.rank1.column[i % param.columns]);
    view.data[i / 2] =
        static_cast<std::uint8_t>(view.data[i / 2] | (i % 2 == 0 ? code << 4 : code));
  }
}

}  // namespace

void check_foreign(const Param& param, int state, const ForeignState& from) {
  const math::FormatInfo& info = math::kFormats[from.format];
  const char* name = math::kRules[param.rule].state[state].name;
  const bool scaled = info.quantised;
  if (info.scale(is_signed(param, state)) == Scale::kRank1) {
    fail(StatusCode::kUnsupported, "import of \"{}\": from rank-1 scales", name);
  }
  if (scaled == (from.scales == nullptr)) {
    fail(StatusCode::kInvalidArgument, "import of \"{}\": format \"{}\" is {} scales", name,
         info.name, scaled ? "given with" : "given without");
  }
  if (from.block < 0 || (from.map != nullptr && !scaled)) {
    fail(StatusCode::kInvalidArgument, "import of \"{}\": block_size {}, map {}", name, from.block,
         static_cast<const void*>(from.map));
  }
  if (scaled && from.n_scales != math::block_count(param.count, derive_block(from, param.count))) {
    fail(StatusCode::kInvalidArgument, "import of \"{}\": {} scales do not fit {} elements{}", name,
         from.n_scales, param.count,
         from.block > 0 ? fmt::format(" in blocks of {}", from.block) : "");
  }
}

const StateArray& state_array(const Param& param, std::int64_t index) {
  if (index < 0 || index >= static_cast<std::int64_t>(param.arrays.size())) {
    fail(StatusCode::kInvalidArgument, "parameter \"{}\": no state {}: there are {}",
         param.spec.name, index, param.arrays.size());
  }
  return param.arrays[static_cast<std::size_t>(index)];
}

void load_state(Param& param, std::int64_t index, const void* data, std::uint64_t bytes) {
  const StateArray& target = state_array(param, index);
  if (bytes != target.memory.bytes) {
    fail(StatusCode::kInvalidArgument,
         "state \"{}\" of parameter \"{}\": {} bytes given, it has {}", target.name,
         param.spec.name, bytes, target.memory.bytes);
  }
  if (param.device != nullptr) {
    param.device->write(target.memory.data.get(), data, bytes);
  } else {
    std::memcpy(target.memory.data.get(), data, bytes);
  }
  const char* extra = math::kWeights[param.weights].extra_name;
  param.has_extra = param.has_extra || (extra != nullptr && target.name == extra);
}

int find_state(const Param& param, std::string_view name) {
  const math::RuleInfo& rule = math::kRules[param.rule];
  for (int s = 0; s < rule.states; ++s) {
    if (name == rule.state[s].name && param.view[s].data != nullptr) {
      return s;
    }
  }
  fail(StatusCode::kInvalidArgument, "parameter \"{}\" has no state \"{}\"", param.spec.name, name);
}

void encode_state(Param& param, int state, const float* values) {
  const backend::StateView& view = param.view[state];
  const math::FormatInfo& info = math::kFormats[view.format];
  const bool sign = is_signed(param, state);
  if (info.scale(sign) == Scale::kRank1) {
    encode_rank1(param, state, values);
    return;
  }
  for_each_piece(param.count, [&](std::int64_t first, std::int64_t last) {
    if (info.encode == nullptr) {
      std::memcpy(view.data + first * 4, values + first,
                  static_cast<std::size_t>(last - first) * sizeof(float));
      return;
    }
    const std::int64_t block = param.task_block();
    for (std::int64_t begin = first; begin < last; begin += block) {
      info.encode(sign, values + begin, std::min(block, last - begin), math::Rounding::kSafe,
                  view.data + info.packed_bytes(begin),
                  view.scale != nullptr ? view.scale + begin / block : nullptr);
    }
  });
}

bool needs_scratch(const Param& param, int state, const ForeignState& from) {
  return !is_own_layout(param, state, from);
}

void import_state(Param& param, int state, const ForeignState& from, float* scratch) {
  const backend::StateView& view = param.view[state];
  if (!is_own_layout(param, state, from)) {
    decode_all(param, state, from, scratch);
    encode_state(param, state, scratch);
    return;
  }
  const math::FormatInfo& info = math::kFormats[view.format];
  std::memcpy(view.data, from.codes, static_cast<std::size_t>(info.packed_bytes(param.count)));
  if (view.scale != nullptr) {
    std::copy(from.scales, from.scales + from.n_scales, view.scale);
  }
}

void export_state(const Param& param, int state, float* out) {
  const backend::StateView& view = param.view[state];
  const math::FormatInfo& info = math::kFormats[view.format];
  const bool sign = is_signed(param, state);
  for_each_piece(param.count, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t block = param.task_block();
    for (std::int64_t begin = first; begin < last; begin += block) {
      const std::int64_t n = std::min(block, last - begin);
      const std::uint8_t* codes = view.data + info.packed_bytes(begin);
      if (info.decode == nullptr) {
        std::memcpy(out + begin, codes, static_cast<std::size_t>(n) * sizeof(float));
      } else if (info.scale(sign) == Scale::kRank1) {
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t at = begin + i;
          const int code = (codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
          out[at] = math::Int4Rank1::decode_at(code, view.rank1.row[at / param.columns],
                                               view.rank1.column[at % param.columns]);
        }
      } else {
        info.decode(sign, codes, view.scale != nullptr ? view.scale + begin / block : nullptr, n,
                    out + begin);
      }
    }
  });
}

}  // namespace nibble::optim
