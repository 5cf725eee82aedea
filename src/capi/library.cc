// SPDX-License-Identifier: Apache-2.0
// nibble.h: status, process-wide settings, enumeration.
#include <algorithm>
#include <iterator>

#include "backend/registry.h"
#include "capi/guard.h"
#include "core/parallel.h"

#define NIBBLE_STRING_(x) #x
#define NIBBLE_STRING(x) NIBBLE_STRING_(x)

namespace nibble::capi {
namespace {

constexpr std::size_t kMaxMessage = 1024;
thread_local char last_error[kMaxMessage] = "no error";

static_assert(NIBBLE_OK == static_cast<int>(StatusCode::kOk));
static_assert(NIBBLE_INVALID_ARGUMENT == static_cast<int>(StatusCode::kInvalidArgument));
static_assert(NIBBLE_WRONG_ORDER == static_cast<int>(StatusCode::kWrongOrder));
static_assert(NIBBLE_UNSUPPORTED == static_cast<int>(StatusCode::kUnsupported));
static_assert(NIBBLE_OUT_OF_MEMORY == static_cast<int>(StatusCode::kOutOfMemory));
static_assert(NIBBLE_IO == static_cast<int>(StatusCode::kIo));
static_assert(NIBBLE_CORRUPT == static_cast<int>(StatusCode::kCorrupt));
static_assert(NIBBLE_NON_FINITE == static_cast<int>(StatusCode::kNonFinite));
static_assert(NIBBLE_INTERNAL == static_cast<int>(StatusCode::kInternal));

}  // namespace

// A fixed buffer, so that reporting "out of memory" needs none. One line, whatever names hold.
void set_last_error(const char* message) noexcept {
  const std::size_t length = std::min(std::strlen(message), kMaxMessage - 1);
  std::replace_copy(message, message + length, last_error, '\n', ' ');
  last_error[length] = '\0';
}

}  // namespace nibble::capi

using nibble::capi::guard;

const char* nibble_status_name(nibble_status status) noexcept {
  switch (status) {
    case NIBBLE_OK:
      return "NIBBLE_OK";
    case NIBBLE_INVALID_ARGUMENT:
      return "NIBBLE_INVALID_ARGUMENT";
    case NIBBLE_WRONG_ORDER:
      return "NIBBLE_WRONG_ORDER";
    case NIBBLE_UNSUPPORTED:
      return "NIBBLE_UNSUPPORTED";
    case NIBBLE_OUT_OF_MEMORY:
      return "NIBBLE_OUT_OF_MEMORY";
    case NIBBLE_IO:
      return "NIBBLE_IO";
    case NIBBLE_CORRUPT:
      return "NIBBLE_CORRUPT";
    case NIBBLE_NON_FINITE:
      return "NIBBLE_NON_FINITE";
    case NIBBLE_INTERNAL:
      return "NIBBLE_INTERNAL";
    default:
      return "unknown status";
  }
}

const char* nibble_last_error() noexcept { return nibble::capi::last_error; }

const char* nibble_version_string() noexcept {
  return NIBBLE_STRING(NIBBLE_VERSION_MAJOR) "." NIBBLE_STRING(
      NIBBLE_VERSION_MINOR) "." NIBBLE_STRING(NIBBLE_VERSION_PATCH);
}

nibble_status nibble_set_thread_count(std::int32_t threads) noexcept {
  return guard([&] { nibble::set_thread_count(threads); });
}

std::int32_t nibble_thread_count() noexcept {
  std::int32_t count = 1;
  guard([&] { count = nibble::thread_count(); });
  return count;
}

nibble_status nibble_set_isa(const char* name) noexcept {
  return guard([&] { nibble::backend::set_isa(name != nullptr ? name : ""); });
}

const char* nibble_isa_name() noexcept {
  const char* name = nullptr;
  guard([&] { name = nibble::backend::active_backend().name; });
  return name;
}

std::int32_t nibble_rule_count() noexcept { return nibble::math::kRuleCount; }

const char* nibble_rule_name(std::int32_t i) noexcept {
  return i >= 0 && i < nibble::math::kRuleCount ? nibble::math::kRules[i].name : nullptr;
}

std::int32_t nibble_format_count() noexcept { return nibble::math::kFormatCount; }

const char* nibble_format_name(std::int32_t i) noexcept {
  return i >= 0 && i < nibble::math::kFormatCount ? nibble::math::kFormats[i].name : nullptr;
}

std::int32_t nibble_weight_format_count() noexcept { return nibble::math::kWeightsCount; }

const char* nibble_weight_format_name(std::int32_t i) noexcept {
  return i >= 0 && i < nibble::math::kWeightsCount ? nibble::math::kWeights[i].name : nullptr;
}
