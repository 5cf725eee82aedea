// SPDX-License-Identifier: Apache-2.0
// nibble.h: devices.
#include "capi/device.h"

#include <string>

#include "capi/guard.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::find_device;
using nibble::capi::guard;
using nibble::capi::is_bf16;
using nibble::capi::require;
using nibble::capi::require_count;
using nibble::capi::require_memory;
using nibble::capi::text_or;
using nibble::capi::write_info;
namespace backend = nibble::backend;
namespace math = nibble::math;

namespace nibble::capi {

backend::Device* find_device(const char* name) {
  const std::string text = text_or(name, "host");
  if (text == "host") {
    return nullptr;
  }
  const std::string number = text.size() > 5 && text.rfind("cuda:", 0) == 0 ? text.substr(5) : "";
  const bool numbered = !number.empty() && number.size() < 4 &&
                        number.find_first_not_of("0123456789") == std::string::npos;
  if (text != "cuda" && !numbered) {
    fail(StatusCode::kInvalidArgument, "device \"{}\": \"host\", \"cuda\" or \"cuda:N\" expected",
         text);
  }
  return &backend::cuda_device(numbered ? std::stoi(number) : 0);
}

void require_memory(backend::Device* device, const void* memory, const char* what) {
  require(memory, what);
  if (device != nullptr && !device->is_device_memory(memory)) {
    fail(StatusCode::kInvalidArgument, "{} at {} is not memory of {}", what, memory,
         device->name());
  }
}

}  // namespace nibble::capi

namespace {

backend::Device& need_device(const char* name) {
  backend::Device* device = find_device(name);
  if (device == nullptr) {
    fail(StatusCode::kInvalidArgument, "device \"host\": \"cuda\" or \"cuda:N\" expected");
  }
  return *device;
}

const math::GgmlTypeInfo& ggml_type(const std::string& name) {
  for (const math::GgmlTypeInfo& info : math::kGgmlTypes) {
    if (name == info.name) {
      return info;
    }
  }
  fail(StatusCode::kUnsupported, "tensor type \"{}\" is not one that nibble reads", name);
}

}  // namespace

nibble_status nibble_device_accumulate(const char* device, void* stream, float* sum, const void* x,
                                       const char* dtype, std::int64_t count,
                                       double scale) noexcept {
  return guard([&] {
    backend::Device& on = need_device(device);
    require_count(count);
    const bool bf16 = is_bf16(dtype, "accumulate");
    nibble::optim::check_float("accumulate: scale", scale);
    if (count > 0) {
      require_memory(&on, sum, "sum");
      require_memory(&on, x, "x");
      on.accumulate({x, bf16}, count, static_cast<float>(scale), sum, stream);
    }
  });
}

nibble_status nibble_device_decode_ggml(const char* device, void* stream, const char* type,
                                        const void* blocks, std::int64_t count,
                                        float* dst) noexcept {
  return guard([&] {
    backend::Device& on = need_device(device);
    require_count(count);
    require(type, "type");
    const math::GgmlTypeInfo& info = ggml_type(type);
    if (count > 0) {
      require_memory(&on, blocks, "blocks");
      require_memory(&on, dst, "dst");
      on.decode_ggml(info.type, static_cast<const std::byte*>(blocks), count, dst, stream);
    }
  });
}

nibble_status nibble_device_allocate(const char* device, const char* kind, std::uint64_t bytes,
                                     const char* purpose, void** out) noexcept {
  return guard([&] {
    backend::Device& on = need_device(device);
    require(out, "out");
    const std::string text = text_or(kind, "device");
    if (text != "device" && text != "pinned") {
      fail(StatusCode::kInvalidArgument, "memory \"{}\": \"device\" or \"pinned\" expected", text);
    }
    const auto which =
        text == "pinned" ? backend::MemoryKind::kPinned : backend::MemoryKind::kDevice;
    *out = on.allocate(which, bytes, text_or(purpose, "the program's"));
  });
}

nibble_status nibble_device_free(const char* device, void* memory) noexcept {
  return guard([&] {
    backend::Device& on = need_device(device);
    if (!on.release(static_cast<std::byte*>(memory))) {
      fail(StatusCode::kInvalidArgument, "{} is not what nibble_device_allocate gave on {}", memory,
           on.name());
    }
  });
}

nibble_status nibble_device_copy(const char* device, void* stream, void* dst, const void* src,
                                 std::uint64_t bytes) noexcept {
  return guard([&] {
    backend::Device& on = need_device(device);
    if (bytes > 0) {
      require(dst, "dst");
      require(src, "src");
      on.copy(dst, src, bytes, stream);
    }
  });
}

nibble_status nibble_device_set_memory_limit(const char* device, std::uint64_t bytes) noexcept {
  return guard([&] { need_device(device).set_memory_limit(bytes); });
}

nibble_status nibble_device_allocations(const char* device, std::int64_t i,
                                        nibble_device_allocation* out) noexcept {
  return guard([&] {
    const auto list = need_device(device).allocations();
    if (i < 0 || i >= static_cast<std::int64_t>(list.size())) {
      fail(StatusCode::kInvalidArgument, "no allocation {}: there are {} purposes", i, list.size());
    }
    thread_local std::string purpose;
    purpose = list[static_cast<std::size_t>(i)].purpose;
    nibble_device_allocation info{};
    info.purpose = purpose.c_str();
    info.is_pinned = list[static_cast<std::size_t>(i)].kind == backend::MemoryKind::kPinned ? 1 : 0;
    info.bytes = list[static_cast<std::size_t>(i)].bytes;
    info.count = list[static_cast<std::size_t>(i)].count;
    write_info(out, sizeof(nibble_device_allocation), "device allocation", info);
  });
}
