// SPDX-License-Identifier: Apache-2.0
// With Settings::guard a wrong access ends the process; this says first what it was.
#pragma once

namespace nibble::cuda_host {

// From now on a segmentation fault names the kernel, the thread and the allocation.
void report_faults();

}  // namespace nibble::cuda_host
