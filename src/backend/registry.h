// SPDX-License-Identifier: Apache-2.0
// Which backend this process uses.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace nibble::backend {

// Backends that this machine can run, best first; the last is the reference.
std::vector<const Backend*> available_backends();

// The one in use: the best, or what set_isa() or else the environment variable NIBBLE_ISA asked
// for. Throws Error(kUnsupported or kInvalidArgument) while NIBBLE_ISA asks for what cannot be.
const Backend& active_backend();

// A backend's name, "avx512" (the best AVX-512 one), or "" or "auto" for the best of all. An Error
// leaves the choice as it was. Not to be called while an optimizer is stepping.
void set_isa(std::string_view name);

}  // namespace nibble::backend
