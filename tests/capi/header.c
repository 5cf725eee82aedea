/* SPDX-License-Identifier: Apache-2.0
 * nibble.h is C99 (and C++17, from header.cc): compiled with -pedantic -Werror. */
#include "nibble/nibble.h"

int nibble_header_compiles(void);
int nibble_header_compiles(void) {
  nibble_optimizer_desc desc = {0};
  desc.struct_size = (uint32_t)sizeof desc;
  return (int)desc.struct_size;
}
