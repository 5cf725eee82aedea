// SPDX-License-Identifier: Apache-2.0
// Runs the blocks of one launch, on one or more OS threads.
#pragma once

#include <string>

#include "cuda_host/control.h"
#include "cuda_host/execution.h"

namespace nibble::cuda_host {

// Returns when all blocks are done: what went wrong first, or nothing.
std::string run_grid(const Launch& launch, const Settings& settings);

}  // namespace nibble::cuda_host
