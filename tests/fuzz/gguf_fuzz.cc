// SPDX-License-Identifier: Apache-2.0
// Any bytes are a GGUF file or an Error; every byte that an accepted file offers can be read.
#include "formats/gguf.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  return fuzz::expect_only_errors([&] {
    const auto text = fuzz::as_text(data, size);
    const formats::GgufFile file(std::as_bytes(std::span(text)), "fuzz.gguf");
    for (const auto& entry : file.metadata()) {
      fuzz::require(file.find(entry.key) == &entry);
      if (entry.type == formats::GgufValueType::kArray) {
        const auto& array = std::get<formats::GgufArray>(entry.value);
        unsigned sum = 0;
        for (const std::byte byte : array.bytes) {
          sum += static_cast<unsigned>(byte);
        }
        for (const auto string : array.strings) {
          sum += string.empty() ? 0U : static_cast<unsigned char>(string.back());
        }
        fuzz::require(sum < 1U << 31);
      }
    }
    for (const auto& tensor : file.tensors()) {
      fuzz::require(file.find_tensor(tensor.name) == &tensor);
      fuzz::require(tensor.rows() * tensor.dims[0] == tensor.elements);
      fuzz::require(file.data(tensor).size() == tensor.bytes);
    }
    file.check_weights();
  });
}
