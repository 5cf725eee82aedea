// SPDX-License-Identifier: Apache-2.0
#include "optim/quantize.h"

#include <algorithm>

#include "backend/float_environment.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "core/status.h"
#include "optim/options.h"

namespace nibble::optim {
namespace {

constexpr std::int64_t kCached = 1 << 22;         // floats that a processor's caches may hold
constexpr std::int64_t kRangeElements = 1 << 16;  // a multiple of every block
static_assert(kRangeElements % math::kMaxBlock == 0);

// body(first, count) for runs of whole blocks.
template <class Body>
void for_each_range(std::int64_t count, const Body& body) {
  parallel_for(math::block_count(count, kRangeElements), [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const std::int64_t first = i * kRangeElements;
    body(first, std::min(kRangeElements, count - first));
  });
}

}  // namespace

QuantizeSpec make_quantize_spec(std::string_view format, const std::string& mode,
                                std::int64_t block, bool is_signed) {
  QuantizeSpec spec;
  spec.format = math::find_format(format);
  if (spec.format < 0 || !math::kFormats[spec.format].quantised) {
    fail(StatusCode::kUnsupported, "\"{}\" is not a quantised format", format);
  }
  const math::FormatInfo& info = math::kFormats[spec.format];
  if (info.scale(is_signed) != math::Scale::kBlock) {
    fail(StatusCode::kUnsupported, "\"{}\" has no block scales for unsigned values", format);
  }
  const Mode whose = find_mode(mode);
  if (whose == Mode::kTorch) {
    fail(StatusCode::kUnsupported, "mode \"torch\" does not quantise");
  }
  spec.rounding = rounding_of(whose);
  spec.block = block != 0 ? block : info.default_block;
  check_block(spec.block);
  spec.is_signed = is_signed;
  return spec;
}

std::array<float, 256> map_values(int format, bool is_signed) {
  const math::FormatInfo& info = math::kFormats[format];
  const std::int64_t levels = info.bits == 4 ? 16 : 256;
  std::array<std::uint8_t, 256> codes{};
  for (std::size_t k = 0; k < static_cast<std::size_t>(levels); ++k) {
    if (info.bits == 4) {
      codes[k / 2] = static_cast<std::uint8_t>(codes[k / 2] | (k << (k % 2 == 0 ? 4 : 0)));
    } else {
      codes[k] = static_cast<std::uint8_t>(k);
    }
  }
  std::array<float, 256> out{};
  const float one = 1.0F;
  info.decode(is_signed, codes.data(), &one, levels, out.data());
  return out;
}

void quantize(const QuantizeSpec& spec, const float* src, std::int64_t count, std::uint8_t* codes,
              float* scales) {
  const backend::Backend& backend = backend::active_backend();
  const math::FormatInfo& format = math::kFormats[spec.format];
  for_each_range(count, [&](std::int64_t first, std::int64_t n) {
    backend.quantize(src + first, n, spec.block, spec.format, spec.is_signed, spec.rounding,
                     codes + format.packed_bytes(first), scales + first / spec.block);
  });
}

void dequantize(const QuantizeSpec& spec, const std::uint8_t* codes, const float* scales,
                std::int64_t count, float* dst) {
  const backend::Backend& backend = backend::active_backend();
  const math::FormatInfo& format = math::kFormats[spec.format];
  for_each_range(count, [&](std::int64_t first, std::int64_t n) {
    backend.dequantize(codes + format.packed_bytes(first), scales + first / spec.block, n,
                       spec.block, spec.format, spec.is_signed, count > kCached, dst + first);
  });
}

}  // namespace nibble::optim
