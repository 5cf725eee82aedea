// SPDX-License-Identifier: Apache-2.0
// What every function of nibble.h passes through: no exception leaves, every failure has a message.
#pragma once

#include <cstring>
#include <new>
#include <type_traits>

#include "backend/float_environment.h"
#include "core/status.h"
#include "nibble/nibble.h"
#include "optim/optimizer.h"

struct nibble_optimizer {
  explicit nibble_optimizer(nibble::optim::Optimizer&& made) : rep(std::move(made)) {}
  nibble::optim::Optimizer rep;
};

namespace nibble::capi {

void set_last_error(const char* message) noexcept;

template <class Body>
nibble_status guard(Body&& body) noexcept {
  try {
    const backend::ScopedFloatEnvironment environment;  // the caller's must not show in results
    body();
    return NIBBLE_OK;
  } catch (const Error& error) {
    set_last_error(error.what());
    return static_cast<nibble_status>(error.code());
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return NIBBLE_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return NIBBLE_INTERNAL;
  } catch (...) {
    set_last_error("unknown exception");
    return NIBBLE_INTERNAL;
  }
}

template <class T>
void require(const T* pointer, const char* what) {
  if (pointer == nullptr) {
    fail(StatusCode::kInvalidArgument, "{} is null", what);
  }
}

// `first_size` is a struct's size in the version that introduced it: nothing shorter was ever
// valid. What is absurdly long was never set, and is not read.
inline void check_struct_size(std::uint32_t size, std::size_t first_size, const char* what) {
  constexpr std::uint32_t kLongest = 4096;
  if (size < first_size) {
    fail(StatusCode::kInvalidArgument, "{}: struct_size is {}, at least {} expected", what, size,
         first_size);
  }
  if (size % alignof(std::uint64_t) != 0) {  // every struct ends so; others would cut a field
    fail(StatusCode::kInvalidArgument, "{}: struct_size is {}, a multiple of {} expected", what,
         size, alignof(std::uint64_t));
  }
  if (size > kLongest) {
    fail(StatusCode::kInvalidArgument, "{}: struct_size is {}, at most {} expected", what, size,
         kLongest);
  }
}

// A descriptor as this library knows it.
template <class T>
T read_desc(const T* desc, std::size_t first_size, const char* what) {
  static_assert(std::is_trivially_copyable_v<T>);
  require(desc, what);
  const std::uint32_t size = desc->struct_size;
  check_struct_size(size, first_size, what);
  const auto* bytes = reinterpret_cast<const unsigned char*>(desc);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      fail(StatusCode::kUnsupported, "{}: byte {} is set, but this version knows only the first {}",
           what, i, sizeof(T));
    }
  }
  T out{};
  std::memcpy(&out, desc, size < sizeof(T) ? size : sizeof(T));
  return out;
}

// A field that later versions may give a meaning: what is set there is not known here.
inline void check_reserved(std::uint32_t reserved, const char* what) {
  if (reserved != 0) {
    fail(StatusCode::kUnsupported, "{}: reserved is {}, 0 expected", what, reserved);
  }
}

// Fills what the caller's (older or newer) struct has room for.
template <class T>
void write_info(T* out, std::size_t first_size, const char* what, T value) {
  require(out, what);
  const std::uint32_t size = out->struct_size;
  check_struct_size(size, first_size, what);
  value.struct_size = size;
  std::memcpy(out, &value, size < sizeof(T) ? size : sizeof(T));
}

inline void require_count(std::int64_t count, const char* what = "count") {
  if (count < 0) {
    fail(StatusCode::kInvalidArgument, "{} is {}: 0 or more expected", what, count);
  }
}

inline std::string text_or(const char* text, const char* fallback) {
  return text != nullptr ? text : fallback;
}

// A dtype of floats; F32 by default.
inline bool is_bf16(const char* dtype, const char* what) {
  const std::string text = text_or(dtype, "F32");
  if (text != "F32" && text != "BF16") {
    fail(StatusCode::kUnsupported, "{}: dtype \"{}\"; F32 or BF16 expected", what, text);
  }
  return text == "BF16";
}

inline optim::HyperValues hyper_values(const nibble_hyper* hypers, std::int64_t n) {
  require_count(n, "n_hypers");
  if (n > 0) {
    require(hypers, "hypers");
  }
  optim::HyperValues out;
  for (std::int64_t i = 0; i < n; ++i) {
    require(hypers[i].name, "hyper-parameter: name");
    out.emplace_back(hypers[i].name, hypers[i].value);
  }
  return out;
}

}  // namespace nibble::capi
