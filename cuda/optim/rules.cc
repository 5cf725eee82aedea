// SPDX-License-Identifier: Apache-2.0
// The rules' kernels by index. Each rule's are compiled by themselves (rule.cu.in).
#include "cuda/optim/launch.h"

namespace nibble::cuda {

#define NIBBLE_RULE(id, name, Type)                                                     \
  cudaError_t launch_step_##name(int format, const StepArgs& args, std::int64_t chunks, \
                                 cudaStream_t stream);                                  \
  cudaError_t launch_measure_##name(const StepArgs& args, std::int64_t chunks, cudaStream_t stream);
#include "math/rules/rules.def"
#undef NIBBLE_RULE
#define NIBBLE_RULE(id, name, Type)                                            \
  cudaError_t launch_collect_##name(const StepArgs& args, std::int64_t chunks, \
                                    backend::StepStats* stats, cudaStream_t stream);
#include "math/rules/rules.def"
#undef NIBBLE_RULE

cudaError_t launch_step(int rule, int format, const StepArgs& args, std::int64_t chunks,
                        cudaStream_t stream) {
  using Launch = cudaError_t (*)(int, const StepArgs&, std::int64_t, cudaStream_t);
  static constexpr Launch kLaunches[] = {
#define NIBBLE_RULE(id, name, Type) &launch_step_##name,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  return kLaunches[rule](format, args, chunks, stream);
}

cudaError_t launch_measure(int rule, const StepArgs& args, std::int64_t chunks,
                           cudaStream_t stream) {
  using Launch = cudaError_t (*)(const StepArgs&, std::int64_t, cudaStream_t);
  static constexpr Launch kLaunches[] = {
#define NIBBLE_RULE(id, name, Type) &launch_measure_##name,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  return kLaunches[rule](args, chunks, stream);
}

cudaError_t launch_collect(int rule, const StepArgs& args, std::int64_t chunks,
                           backend::StepStats* stats, cudaStream_t stream) {
  using Launch = cudaError_t (*)(const StepArgs&, std::int64_t, backend::StepStats*, cudaStream_t);
  static constexpr Launch kLaunches[] = {
#define NIBBLE_RULE(id, name, Type) &launch_collect_##name,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  return kLaunches[rule](args, chunks, stats, stream);
}

}  // namespace nibble::cuda
