// SPDX-License-Identifier: Apache-2.0
// Any text is JSON or an Error; what is accepted is the same after dump and parse.
#include "formats/json.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  return fuzz::expect_only_errors([&] {
    const auto json = formats::parse_json(fuzz::as_text(data, size), "fuzz.json");
    const std::string dumped = json.dump();
    fuzz::require(formats::parse_json(dumped, "fuzz.json") == json);
  });
}
