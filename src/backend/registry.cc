// SPDX-License-Identifier: Apache-2.0
#include "backend/registry.h"

#include <atomic>
#include <cstdlib>

#include "backend/cpu_backends.h"
#include "core/status.h"

namespace nibble::backend {
namespace {

std::atomic<const Backend*> chosen{nullptr};

std::string join_names(const std::vector<const Backend*>& backends) {
  std::string out;
  for (const Backend* backend : backends) {
    out += (out.empty() ? "" : ", ") + std::string(backend->name);
  }
  return out;
}

const Backend& resolve(std::string_view name, const char* who) {
  const auto available = available_backends();
  if (name.empty() || name == "auto") {
    return *available.front();
  }
  // "avx512" means the best of its kind, so a CPU without VBMI serves it by avx512_base.
  for (const Backend* backend : available) {
    if (name == backend->name ||
        (name == "avx512" && std::string_view(backend->name) == kAvx512Base)) {
      return *backend;
    }
  }
  for (const char* known : kIsaNames) {
    if (name == known) {
      fail(StatusCode::kUnsupported, "{}: this CPU (or build) has no \"{}\"; it has {}", who, name,
           join_names(available));
    }
  }
  fail(StatusCode::kInvalidArgument, "{}: unknown instruction set \"{}\"; this machine has {}", who,
       name, join_names(available));
}

}  // namespace

std::vector<const Backend*> available_backends() {
  std::vector<const Backend*> out = cpu_backends();
  out.push_back(&reference_backend());
  return out;
}

const Backend& active_backend() {
  const Backend* backend = chosen.load(std::memory_order_acquire);
  if (backend == nullptr) {
    const char* wanted = std::getenv("NIBBLE_ISA");
    backend = &resolve(wanted != nullptr ? wanted : "", "NIBBLE_ISA");
    chosen.store(backend, std::memory_order_release);
  }
  return *backend;
}

void set_isa(std::string_view name) {
  chosen.store(&resolve(name, "isa"), std::memory_order_release);
}

}  // namespace nibble::backend
