// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "formats/ggml_type_names.h"
#include "formats/gguf_layout.h"
#include "formats/gguf_parser.h"
#include "formats/text_safety.h"

namespace nibble::formats {

void GgufParser::read_tensors(std::vector<GgufTensor>& out, Index& index) {
  out.reserve(std::min(tensor_count_, reader_.remaining() / 24));
  for (std::uint64_t i = 0; i < tensor_count_; ++i) {
    const std::uint64_t offset = reader_.position();
    reader_.set_context(fmt::format("tensor #{}", i));
    GgufTensor tensor = read_tensor();
    if (!index.emplace(tensor.name, out.size()).second) {
      fail_here(StatusCode::kCorrupt, offset, "appears twice");
    }
    out.push_back(tensor);
  }
  place_tensors(out);
}

// Leaves in `offset` what the file says: relative to the data, not yet checked.
GgufTensor GgufParser::read_tensor() {
  GgufTensor tensor{};
  tensor.name = read_name("tensor name", limits_.max_tensor_name_bytes);
  reader_.set_context(fmt::format("tensor '{}'", printable(tensor.name)));
  const std::uint64_t at = reader_.position();
  tensor.n_dims = reader_.read<std::uint32_t>("the number of dimensions");
  if (tensor.n_dims < 1 || tensor.n_dims > 4) {
    fail_here(StatusCode::kCorrupt, at, "{} dimensions, must be 1 to 4", tensor.n_dims);
  }
  tensor.dims.fill(1);
  tensor.elements = 1;
  for (std::uint32_t i = 0; i < tensor.n_dims; ++i) {
    const std::uint64_t dim_offset = reader_.position();
    tensor.dims[i] = reader_.read<std::uint64_t>("a dimension");
    if (tensor.dims[i] == 0) {
      fail_here(StatusCode::kCorrupt, dim_offset, "dimension {} is 0", i);
    }
    if (!multiply(tensor.elements, tensor.dims[i], tensor.elements)) {
      fail_here(StatusCode::kCorrupt, dim_offset, "its number of elements does not fit 64 bits");
    }
  }
  const std::uint64_t type_offset = reader_.position();
  const math::GgmlTypeInfo& info = read_tensor_type();
  tensor.type = info.type;
  if (tensor.dims[0] % info.block_elements != 0) {
    fail_here(StatusCode::kCorrupt, type_offset,
              "rows of {} elements do not divide into blocks of {} ({})", tensor.dims[0],
              info.block_elements, info.name);
  }
  if (!multiply(tensor.elements / info.block_elements, info.block_bytes, tensor.bytes)) {
    fail_here(StatusCode::kCorrupt, type_offset, "its number of bytes does not fit 64 bits");
  }
  const std::uint64_t offset_offset = reader_.position();
  tensor.offset = reader_.read<std::uint64_t>("the data offset");
  if (tensor.offset % alignment_ != 0) {
    fail_here(StatusCode::kCorrupt, offset_offset,
              "data offset {} is not a multiple of the alignment {}", tensor.offset, alignment_);
  }
  return tensor;
}

const math::GgmlTypeInfo& GgufParser::read_tensor_type() {
  const std::uint64_t offset = reader_.position();
  const auto id = reader_.read<std::uint32_t>("the tensor type");
  if (const math::GgmlTypeInfo* info = math::ggml_type_info(id); info != nullptr) {
    return *info;
  }
  const std::string_view name = foreign_ggml_type_name(id);
  if (name.empty()) {
    fail_here(StatusCode::kCorrupt, offset, "tensor type {} does not exist", id);
  }
  fail_here(StatusCode::kUnsupported, offset, "tensor type {} is not supported", name);
}

// Turns offsets into absolute ones: inside the file and apart from each other.
void GgufParser::place_tensors(std::vector<GgufTensor>& tensors) const {
  if (tensors.empty()) {
    return;
  }
  const std::uint64_t begin = gguf_align(reader_.position(), alignment_);
  const std::uint64_t data_bytes = bytes_.size() - std::min<std::uint64_t>(begin, bytes_.size());
  std::vector<const GgufTensor*> by_offset;
  by_offset.reserve(tensors.size());
  for (GgufTensor& tensor : tensors) {
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
      fail(StatusCode::kCorrupt,
           "{}: tensor '{}': {} bytes at offset {} + {} lie beyond the file's end at {}", name_,
           printable(tensor.name), tensor.bytes, begin, tensor.offset, bytes_.size());
    }
    tensor.offset += begin;
    by_offset.push_back(&tensor);
  }
  std::ranges::sort(by_offset, {}, &GgufTensor::offset);
  for (std::size_t i = 1; i < by_offset.size(); ++i) {
    const GgufTensor& before = *by_offset[i - 1];
    if (by_offset[i]->offset < before.offset + before.bytes) {
      fail(StatusCode::kCorrupt, "{}: tensor '{}' at offset {} overlaps tensor '{}'", name_,
           printable(by_offset[i]->name), by_offset[i]->offset, printable(before.name));
    }
  }
}

}  // namespace nibble::formats
