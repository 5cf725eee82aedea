// SPDX-License-Identifier: Apache-2.0
// What the writer and the reader of checkpoints agree on (FORMAT.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "formats/json.h"

namespace nibble::formats {

inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::string_view kManifestFormat = "nibble-checkpoint";
inline constexpr std::uint64_t kManifestVersion = 1;
inline constexpr std::uint64_t kMaxManifestBytes = 64U << 20;

// XXH3-64 (seed 0) as 16 lower-case hexadecimal digits.
std::string xxh3_hex(std::span<const std::byte> bytes);
std::string xxh3_hex(std::string_view text);

// A file name that stays inside its directory, on any system: letters, digits, '.', '_', '-',
// not beginning with '.'.
bool is_plain_file_name(std::string_view name);

// The manifest as it stands on disk, ending with its own checksum.
std::string encode_manifest(const Json& manifest);
// The way back, for untrusted text: format, version and checksum are right, and every member has
// the type that FORMAT.md says. `where` stands in messages.
Json decode_manifest(std::string_view text, std::string_view where);

}  // namespace nibble::formats
