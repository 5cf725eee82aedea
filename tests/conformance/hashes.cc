// SPDX-License-Identifier: Apache-2.0
// Prints a line for every rule, format and weight choice: the hash of all that two steps on the
// device leave behind. tests/gpu.sh compares a GPU's lines with the stand-in's.
#define XXH_INLINE_ALL  // no library of it is linked
#include <xxhash.h>

#include <cstdio>

#include "conformance/device_run.h"

namespace {

using namespace nibble::test;

void print_hash(const std::string& name, const std::vector<std::vector<std::uint8_t>>& arrays) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_64bits_reset(state);
  for (const auto& bytes : arrays) {
    XXH3_64bits_update(state, bytes.data(), bytes.size());
  }
  std::printf("%016llx %s\n", static_cast<unsigned long long>(XXH3_64bits_digest(state)),
              name.c_str());
  XXH3_freeState(state);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no CUDA device\n");
    return 77;
  }
  for (const std::size_t n : {13U * 41U, 13U * 1001U}) {
    for (const TensorCase& setup : all_cases(13)) {
      for (const char* input : {"normal", "outlier", "denormal"}) {
        DeviceRun run(setup, make_input("normal", n, 50));
        run.step(make_input(input, n, 1));
        run.step(make_input(input, n, 2));
        print_hash(setup.name() + " " + input + " " + std::to_string(n), run.bytes());
      }
    }
  }
  return 0;
}
