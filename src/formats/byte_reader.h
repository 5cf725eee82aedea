// SPDX-License-Identifier: Apache-2.0
// The only place where a position in untrusted bytes moves. Every check is made before anything is
// added, so no sum can wrap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/status.h"

namespace nibble::formats {

class ByteReader {
 public:
  // `file` stands in messages and outlives the reader.
  ByteReader(std::span<const std::byte> bytes, std::string_view file)
      : bytes_(bytes), file_(file) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t remaining() const { return bytes_.size() - position_; }

  // What is being read, for messages: "key 'a.b'", "header".
  void set_context(std::string context) { context_ = std::move(context); }
  const std::string& context() const { return context_; }

  // The next n bytes. `what` is a literal: "string length".
  std::span<const std::byte> take(std::uint64_t n, std::string_view what) {
    if (n > remaining()) {
      fail(StatusCode::kCorrupt, "{}: {}: {} at offset {} needs {} bytes, the file has {} more",
           file_, context_, what, position_, n, remaining());
    }
    const auto taken = bytes_.subspan(position_, n);
    position_ += n;
    return taken;
  }

  template <class T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::string context_;
  std::uint64_t position_ = 0;
};

// False if the result does not fit.
inline bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& result) {
  return !__builtin_mul_overflow(a, b, &result);
}
inline bool add(std::uint64_t a, std::uint64_t b, std::uint64_t& result) {
  return !__builtin_add_overflow(a, b, &result);
}

}  // namespace nibble::formats
