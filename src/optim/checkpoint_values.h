// SPDX-License-Identifier: Apache-2.0
// Values of a checkpoint's manifest, which anyone may have written: what is not of the type or not
// in the range that FORMAT.md says is an Error(kCorrupt) that names file and key.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "formats/json.h"

namespace nibble::optim {

// `where` is the file and, if the value is a parameter's, its name. Types other than numbers are
// told by name: a text could be of any length.
[[noreturn]] inline void fail_value(const std::string& where, std::string_view key,
                                    const formats::Json& value, const std::string& expected) {
  fail(StatusCode::kCorrupt, "{}: manifest: {} is {}: {} expected", where, key,
       value.is_number() ? value.dump() : std::string(value.type_name()), expected);
}

inline const formats::Json& member(const formats::Json& object, const char* key,
                                   const std::string& where) {
  const auto at = object.find(key);
  if (at == object.end()) {
    fail(StatusCode::kCorrupt, "{}: manifest: {} is missing", where, key);
  }
  return *at;
}

inline const formats::Json& object_member(const formats::Json& object, const char* key,
                                          const std::string& where) {
  const formats::Json& value = member(object, key, where);
  if (!value.is_object()) {
    fail_value(where, key, value, "an object");
  }
  return value;
}

inline const std::string& text_member(const formats::Json& object, const char* key,
                                      const std::string& where) {
  const formats::Json& value = member(object, key, where);
  if (!value.is_string()) {
    fail_value(where, key, value, "a text");
  }
  return value.get_ref<const std::string&>();
}

// Numbers with a fraction or an exponent are none; nor is what int64 cannot hold.
inline std::int64_t integer(const formats::Json& value, const char* key, std::int64_t low,
                            std::int64_t high, const std::string& where) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const bool holds = value.is_number_integer() &&
                     !(value.is_number_unsigned() && value.get<std::uint64_t>() > kMax);
  if (!holds || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    fail_value(where, key, value, fmt::format("an integer in {} .. {}", low, high));
  }
  return value.get<std::int64_t>();
}

inline std::int64_t integer_member(const formats::Json& object, const char* key, std::int64_t low,
                                   std::int64_t high, const std::string& where) {
  return integer(member(object, key, where), key, low, high, where);
}

inline bool bool_member(const formats::Json& object, const char* key, const std::string& where) {
  const formats::Json& value = member(object, key, where);
  if (!value.is_boolean()) {
    fail_value(where, key, value, "true or false");
  }
  return value.get<bool>();
}

inline std::vector<std::int64_t> extents_member(const formats::Json& object, const char* key,
                                                const std::string& where) {
  const formats::Json& value = member(object, key, where);
  if (!value.is_array()) {
    fail_value(where, key, value, "an array");
  }
  std::vector<std::int64_t> out;
  for (const formats::Json& extent : value) {
    out.push_back(integer(extent, key, 0, std::numeric_limits<std::int64_t>::max(), where));
  }
  return out;
}

}  // namespace nibble::optim
