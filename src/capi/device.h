// SPDX-License-Identifier: Apache-2.0
// Devices by the names that nibble.h has for them.
#pragma once

#include "backend/device.h"

namespace nibble::capi {

// Null for the host (also by a null name). Error for an unknown name or a device that is not there.
backend::Device* find_device(const char* name);

// Error unless `memory` is the device's; of the host (null), unless it is not null.
void require_memory(backend::Device* device, const void* memory, const char* what);

}  // namespace nibble::capi
