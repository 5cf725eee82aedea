/* SPDX-License-Identifier: Apache-2.0
 * Prints the instruction set in use, or why there is none. */
#include <nibble/nibble.h>
#include <stdio.h>

int main(void) {
  const char* name = nibble_isa_name();
  puts(name != NULL ? name : nibble_last_error());
  return 0;
}
