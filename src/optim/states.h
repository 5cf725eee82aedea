// SPDX-License-Identifier: Apache-2.0
// States from outside: as they are, or decoded from another format and encoded in the parameter's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "optim/optimizer.h"

namespace nibble::optim {

const StateArray& state_array(const Param& param, std::int64_t index);
void load_state(Param& param, std::int64_t index, const void* data, std::uint64_t bytes);

// A state as it lies elsewhere: codes of a format with a scale for each block.
struct ForeignState {
  int format = 0;  // index in math::kFormats
  bool low_nibble_first = false;
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;
  std::int64_t n_scales = 0;
  std::int64_t block = 0;      // 0: the smallest power of two that gives n_scales
  const float* map = nullptr;  // values by code; null: the format's own
};

// Index of a rule's state that this parameter keeps, or Error(kInvalidArgument).
int find_state(const Param& param, std::string_view name);

// Throws Error if that cannot be such a state.
void check_foreign(const Param& param, int state, const ForeignState& from);
// After check_foreign; `scratch`: count floats, where needs_scratch() says so.
bool needs_scratch(const Param& param, int state, const ForeignState& from);
void import_state(Param& param, int state, const ForeignState& from, float* scratch);
// count floats.
void export_state(const Param& param, int state, float* out);
// Encodes count floats as the parameter's state.
void encode_state(Param& param, int state, const float* values);

// A directory with the states of all parameters and the step count.
void save_checkpoint(const Optimizer& optimizer, const std::string& directory);
void load_checkpoint(Optimizer& optimizer, const std::string& directory);
// The same from a manifest's `extra` and the component's file, for whatever bytes these are.
void load_states(Optimizer& optimizer, const formats::Json& extra,
                 const formats::SafetensorsFile& file, const std::string& directory);

}  // namespace nibble::optim
