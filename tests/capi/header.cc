// SPDX-License-Identifier: Apache-2.0
#include "nibble/nibble.hpp"

static_assert(sizeof(nibble_status) == 4);
static_assert(noexcept(nibble_optimizer_destroy(nullptr)));
