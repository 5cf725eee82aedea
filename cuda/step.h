// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "backend/device.h"

namespace nibble::cuda {

// backend::Device::make_step of the device of that index, which must outlive the step.
std::unique_ptr<backend::DeviceStep> make_cuda_step(
    backend::Device& device, int index, const std::vector<backend::DeviceTensor>& tensors,
    const std::vector<backend::DeviceGroup>& groups);

}  // namespace nibble::cuda
