// SPDX-License-Identifier: Apache-2.0
// Parameters that live on a device, as the host sees them.
#pragma once

#include <memory>

#include "optim/param.h"

namespace nibble::optim {

// A parameter whose arrays the host can read and change: itself where it is on the host, else a
// copy. Waits for the device.
class HostParam {
 public:
  explicit HostParam(const Param& param);
  const Param& operator*() const { return copy_ != nullptr ? *copy_ : original_; }
  const Param* operator->() const { return &**this; }
  Param& mutable_param() { return const_cast<Param&>(**this); }
  // Takes the copy's arrays to the device.
  void write_back(Param& param) const;

 private:
  const Param& original_;
  std::unique_ptr<Param> copy_;
};

// Error unless null or memory that the parameter's device can use.
void check_device_memory(const Param& param, const void* memory, const char* what);
// Sets the optimizer's own part of the weights from the caller's.
void adopt_on_device(const Param& param, const math::WeightInfo& info,
                     const backend::WeightView& view);

}  // namespace nibble::optim
