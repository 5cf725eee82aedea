// SPDX-License-Identifier: Apache-2.0
// Making a parameter: which format it gets and why, and its state memory.
#pragma once

#include "optim/optimizer.h"

namespace nibble::optim {

// Throws Error for a shape or a format that cannot be.
Param make_param(const Options& options, const math::RuleInfo& rule, ParamSpec spec);

// Sets the states to zero, each thread touching the pages that it will later work on.
void clear_states(const math::RuleInfo& rule, Param& param);

}  // namespace nibble::optim
