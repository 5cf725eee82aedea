// SPDX-License-Identifier: Apache-2.0
// Cuts text into the pieces inside which BPE merges, by a pre-tokenizer's regular expression.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble::text {

// The expression of a pre-tokenizer ("smollm"), nullptr if unknown. Each matches at least one
// code point at every position of any text.
const char* pretokenizer_expression(std::string_view name);
std::string pretokenizer_names();

class Splitter {
 public:
  explicit Splitter(const char* expression);

  // Walks over one text. Each thread has its own.
  class Cursor {
   public:
    explicit Cursor(const Splitter& splitter);
    // `text` is well-formed UTF-8.
    void start(std::string_view text);
    // The next piece; empty at the end. The pieces follow each other without holes.
    std::string_view next();

   private:
    struct Free {
      void operator()(void* data) const;
    };
    const void* code_;
    const void* context_;
    std::unique_ptr<void, Free> match_;
    std::string_view text_;
    std::size_t position_ = 0;
  };

 private:
  // PCRE2 objects behind void pointers keep its header, which is all macros, out of ours.
  std::shared_ptr<void> code_, context_;
};

}  // namespace nibble::text
