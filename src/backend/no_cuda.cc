// SPDX-License-Identifier: Apache-2.0
// What a build without CUDA links.
#include "backend/device.h"
#include "core/status.h"

namespace nibble::backend {

Device& cuda_device(int /*index*/) {
  fail(StatusCode::kUnsupported, "this build of nibble has no CUDA backend");
}

}  // namespace nibble::backend
