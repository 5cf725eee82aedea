/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NIBBLE_NIBBLE_H
#define NIBBLE_NIBBLE_H
#define NIBBLE_VERSION_MAJOR 0
#define NIBBLE_VERSION_MINOR 1
#define NIBBLE_VERSION_PATCH 0
#endif
