// SPDX-License-Identifier: Apache-2.0
// Rules that work on a whole matrix (RuleKind::kFactored, kOrthogonal): passes around a backend's
// element-wise step, in a workspace of the tensor's size. Results are the same for any number of
// threads and any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "optim/param.h"

namespace nibble::optim {

// One step, in a workspace of backend::matrix_scratch_bytes(). `task` is as for an element-wise
// rule.
void step_matrix(Param& param, const backend::StepTask& task, std::byte* workspace);

// The parts of step_matrix.
void step_factored(Param& param, const backend::StepTask& task, std::byte* workspace);
void step_orthogonal(Param& param, const backend::StepTask& task, std::byte* workspace);

// backend.step over all ranges of the parameter.
void run_all_ranges(const Param& param, const backend::StepTask& task);
// The sum of squares of n floats, by the tree of backend.h; `leaves` is scratch, one a leaf.
double sum_of_squares(const float* x, std::int64_t n, double* leaves);

}  // namespace nibble::optim
