// SPDX-License-Identifier: Apache-2.0
// Any text is a manifest or an Error. The checksum would stop every mutation at the door, so what
// parses as JSON is also tried with a right one.
#include "formats/checkpoint_manifest.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  const auto text = fuzz::as_text(data, size);
  fuzz::expect_only_errors([&] { formats::decode_manifest(text, "manifest.json"); });
  return fuzz::expect_only_errors([&] {
    formats::Json json = formats::parse_json(text, "manifest.json");
    if (!json.is_object()) {
      return;
    }
    json.erase("xxh3");
    const std::string signed_text = formats::encode_manifest(json);
    const formats::Json manifest = formats::decode_manifest(signed_text, "manifest.json");
    for (const auto& [name, entry] : manifest.at("components").items()) {
      fuzz::require(formats::is_plain_file_name(entry.at("file").get<std::string>()));
      fuzz::require(entry.at("tensors").is_object());
    }
    for (const auto& [name, entry] : manifest.at("files").items()) {
      fuzz::require(formats::is_plain_file_name(name));
      fuzz::require(entry.at("bytes").is_number_unsigned());
    }
  });
}
