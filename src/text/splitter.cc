// SPDX-License-Identifier: Apache-2.0
#include "text/splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <utility>

#include "core/status.h"

namespace nibble::text {
namespace {

// White_Space as Unicode defines it: PCRE2's own \s adds U+180E, which the peers do not.
#define NIBBLE_SPACE                                                                            \
  "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
  "\\x{205f}\\x{3000}"

// "smollm" is two passes in the peers: every \p{N} is cut out, then GPT-2's expression
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// works on what is left between them. In one pass a number must look like the end of the text to
// the look-ahead, and a blank before it is never taken into its piece.
constexpr std::array<std::pair<std::string_view, const char*>, 1> kExpressions{{
    {"smollm",
     "\\p{N}"
     "|'(?:s|t|re|ve|m|ll|d)"
     "| ?\\p{L}+"
     "| ?[^" NIBBLE_SPACE "\\p{L}\\p{N}]+"
     "|[" NIBBLE_SPACE "]+(?![^" NIBBLE_SPACE "\\p{N}])"
     "|[" NIBBLE_SPACE "]+"},
}};

// No alternative backtracks by more than one code point, so that a small limit is never reached;
// it is there for the expression that a later family brings.
constexpr std::uint32_t kMatchLimit = 1'000'000;
constexpr std::uint32_t kHeapLimitKib = 65'536;

}  // namespace

const char* pretokenizer_expression(std::string_view name) {
  for (const auto& [known, expression] : kExpressions) {
    if (known == name) {
      return expression;
    }
  }
  return nullptr;
}

std::string pretokenizer_names() {
  std::string names;
  for (const auto& [name, expression] : kExpressions) {
    names.append(names.empty() ? "" : ", ").append(name);
  }
  return names;
}

Splitter::Splitter(const char* expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression), PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    fail(StatusCode::kInternal, "pre-tokenizer expression: error {} at offset {}", error, offset);
  }
  code_ = {code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); }};
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it is refused, the interpreter runs
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  if (context == nullptr) {
    throw std::bad_alloc();
  }
  context_ = {context,
              [](void* p) { pcre2_match_context_free(static_cast<pcre2_match_context*>(p)); }};
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_heap_limit(context, kHeapLimitKib);
}

void Splitter::Cursor::Free::operator()(void* data) const {
  pcre2_match_data_free(static_cast<pcre2_match_data*>(data));
}

Splitter::Cursor::Cursor(const Splitter& splitter)
    : code_(splitter.code_.get()),
      context_(splitter.context_.get()),
      match_(pcre2_match_data_create(1, nullptr)) {
  if (match_ == nullptr) {
    throw std::bad_alloc();
  }
}

void Splitter::Cursor::start(std::string_view text) {
  text_ = text;
  position_ = 0;
}

std::string_view Splitter::Cursor::next() {
  if (position_ == text_.size()) {
    return {};
  }
  auto* match = static_cast<pcre2_match_data*>(match_.get());
  // The match context is only read while matching; PCRE2's prototype lacks the const.
  auto* context = static_cast<pcre2_match_context*>(const_cast<void*>(context_));
  const int result =
      pcre2_match(static_cast<const pcre2_code*>(code_), reinterpret_cast<PCRE2_SPTR>(text_.data()),
                  text_.size(), position_, PCRE2_NO_UTF_CHECK, match, context);
  const PCRE2_SIZE end = result < 0 ? 0 : pcre2_get_ovector_pointer(match)[1];
  if (end <= position_) {
    fail(StatusCode::kInternal, "pre-tokenizer: no match at byte {} (PCRE2 result {})", position_,
         result);
  }
  const std::string_view piece = text_.substr(position_, end - position_);
  position_ = end;
  return piece;
}

}  // namespace nibble::text
