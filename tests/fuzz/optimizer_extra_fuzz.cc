// SPDX-License-Identifier: Apache-2.0
// Any JSON beside sound tensors is the checkpoint of an optimizer or an Error that changes nothing.
// The checksums would stop every mutation at the door, so the reader behind them is called.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "formats/json.h"
#include "optim/states.h"
#include "support/paths.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace nibble;

// Parameters with every kind of array: codes, scales of blocks and of rows and columns, a master.
class Target {
 public:
  Target() : optimizer_(options()) {
    optimizer_.add_param({"vector", {300}, "", "int8", "", 0, 0});
    optimizer_.add_param({"matrix", {4, 75}, "", "int4_rank1", "", 0, 0});
    optimizer_.add_param({"narrow", {300}, "bf16_master", "fp32", "", 0, 0});
    const test::TemporaryDirectory temporary;
    const auto directory = temporary.path() / "saved";
    optim::save_checkpoint(optimizer_, directory.string());
    std::ifstream in(directory / "optimizer.safetensors", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
  }

  void load(const formats::Json& extra) {
    const std::vector<std::byte> before = state();
    const formats::SafetensorsFile file(std::as_bytes(std::span(bytes_)), "fuzz.safetensors");
    try {
      optim::load_states(optimizer_, extra, file, "fuzz");
    } catch (const Error&) {
      fuzz::require(state() == before);
      throw;
    }
    const std::int64_t step = optimizer_.step_count();
    fuzz::require(step >= 0 && step <= optim::Optimizer::kMaxStepCount);
  }

 private:
  static optim::Options options() {
    optim::Options out;
    out.min_quantized_elements = 1;
    return out;
  }
  std::vector<std::byte> state() const {
    std::vector<std::byte> out;
    for (std::int64_t i = 0; i < optimizer_.param_count(); ++i) {
      for (const optim::StateArray& array : optimizer_.param(i).arrays) {
        const auto* data = array.memory.data.get();
        out.insert(out.end(), data, data + array.memory.bytes);
      }
    }
    return out;
  }

  optim::Optimizer optimizer_;
  std::string bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Target target;
  return fuzz::expect_only_errors(
      [&] { target.load(formats::parse_json(fuzz::as_text(data, size), "fuzz.json")); });
}
