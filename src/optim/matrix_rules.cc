// SPDX-License-Identifier: Apache-2.0
#include "optim/matrix_rules.h"

#include <algorithm>
#include <numeric>

#include "backend/float_environment.h"
#include "backend/registry.h"
#include "core/parallel.h"

namespace nibble::optim {

void step_matrix(Param& param, const backend::StepTask& task, std::byte* workspace) {
  if (param.count == 0) {
    return;
  }
  if (math::kRules[param.rule].kind == math::RuleKind::kFactored) {
    step_factored(param, task, workspace);
  } else {
    step_orthogonal(param, task, workspace);
  }
}

void run_all_ranges(const Param& param, const backend::StepTask& task) {
  const backend::Backend& backend = backend::active_backend();
  const auto run = [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const std::int64_t first = i * param.range;
    backend.step(task, first, std::min(first + param.range, param.count));
  };
  const std::int64_t ranges = math::block_count(param.count, param.range);
  if (task.stats == nullptr) {
    parallel_for(ranges, run);
    return;
  }
  for (std::int64_t i = 0; i < ranges; ++i) {  // they share the statistics
    run(i);
  }
}

double sum_of_squares(const float* x, std::int64_t n, double* leaves) {
  const backend::Backend& backend = backend::active_backend();
  const std::int64_t count = math::block_count(n, backend::kSumLeaf);
  parallel_for(count, [&](std::int64_t i) {
    const backend::ScopedFloatEnvironment environment;
    const std::int64_t first = i * backend::kSumLeaf;
    leaves[i] = backend.sum_leaf({x, false}, first, std::min(backend::kSumLeaf, n - first), 1.0F)
                    .sum_of_squares;
  });
  return std::accumulate(leaves, leaves + count, 0.0);
}

}  // namespace nibble::optim
