// SPDX-License-Identifier: Apache-2.0
#include "optim/quantize.h"

#include <algorithm>
#include <bit>

#include "backend/float_environment.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "core/status.h"

namespace nibble::optim {
namespace {

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

void check_block(std::int64_t block) {
  if (block < math::kMinBlock || block > math::kMaxBlock ||
      !std::has_single_bit(static_cast<std::uint64_t>(block))) {
    fail(StatusCode::kInvalidArgument, "block_size is {}: a power of two in {} .. {} expected",
         block, math::kMinBlock, math::kMaxBlock);
  }
}

QuantizeSpec make_quantize_spec(std::string_view format, std::string_view mode, std::int64_t block,
                                bool is_signed) {
  QuantizeSpec spec;
  spec.format = math::find_format(format);
  if (spec.format < 0 || !math::kFormats[spec.format].block_wise) {
    fail(StatusCode::kUnsupported, "\"{}\" is not a quantised format", format);
  }
  if (mode != "default" && mode != "bnb") {
    fail(StatusCode::kUnsupported, "no mode \"{}\" for quantising; there are \"default\", \"bnb\"",
         mode);
  }
  check_block(block);
  spec.rounding = mode == "bnb" ? math::Rounding::kNearest : math::Rounding::kSafe;
  spec.block = block;
  spec.is_signed = is_signed;
  return spec;
}

void quantize(const QuantizeSpec& spec, const float* src, std::int64_t count, std::uint8_t* codes,
              float* absmax) {
  const backend::Backend& backend = backend::active_backend();
  const math::FormatInfo& format = math::kFormats[spec.format];
  for_each_range(count, [&](std::int64_t first, std::int64_t n) {
    backend.quantize(src + first, n, spec.block, spec.format, spec.is_signed, spec.rounding,
                     codes + format.packed_bytes(first), absmax + first / spec.block);
  });
}

void dequantize(const QuantizeSpec& spec, const std::uint8_t* codes, const float* absmax,
                std::int64_t count, float* dst) {
  const backend::Backend& backend = backend::active_backend();
  const math::FormatInfo& format = math::kFormats[spec.format];
  for_each_range(count, [&](std::int64_t first, std::int64_t n) {
    backend.dequantize(codes + format.packed_bytes(first), absmax + first / spec.block, n,
                       spec.block, spec.format, spec.is_signed, dst + first);
  });
}

}  // namespace nibble::optim
