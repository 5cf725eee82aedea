// SPDX-License-Identifier: Apache-2.0
// Any bytes are a safetensors file or an Error; in an accepted file the tensors tile the data.
#include "formats/safetensors.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  return fuzz::expect_only_errors([&] {
    const auto text = fuzz::as_text(data, size);
    const formats::SafetensorsFile file(std::as_bytes(std::span(text)), "fuzz.safetensors");
    const std::byte* end = nullptr;
    for (const auto& tensor : file.tensors()) {
      std::uint64_t bytes = formats::safetensors_dtype_bytes(tensor.dtype);
      for (const auto dim : tensor.shape) {
        bytes *= dim;
      }
      fuzz::require(tensor.bytes.size() == bytes);
      fuzz::require(end == nullptr || tensor.bytes.data() == end);
      end = tensor.bytes.data() + tensor.bytes.size();
      fuzz::require(file.find(tensor.name) == &tensor);
    }
    fuzz::require(end == nullptr || end == reinterpret_cast<const std::byte*>(data) + size);
  });
}
