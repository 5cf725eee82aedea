// SPDX-License-Identifier: Apache-2.0
// Chat templates: a model's own template is recognised by its markers and rendered by our own
// renderer of that family (ChatML here). One that is not recognised is refused, with the list of
// families that can be forced (--chat-template).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

struct Message {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
  bool train = true;  // only for assistant messages: counts in the loss
};

// Rendered text, and the spans (bytes) that are targets when only completions are trained: each
// assistant message's content with the end-of-turn marker that closes it.
struct RenderedChat {
  struct Span {
    std::uint32_t begin, end;
  };
  std::string text;
  std::vector<Span> completions;
};

class ChatTemplate {
 public:
  // From the model's template (tokenizer.chat_template). Error(kUnsupported) if not recognised.
  static ChatTemplate recognise(std::string_view jinja);
  // By family name; "chatml". Error(kInvalidArgument) lists the names.
  static ChatTemplate family(std::string_view name);
  static std::vector<std::string> families();

  // With add_generation_prompt the opening of an assistant turn is appended. Messages that contain
  // the template's own markers are an Error(kInvalidArgument) (injection), as is an unknown role.
  RenderedChat render(const std::vector<Message>& messages, bool add_generation_prompt) const;

  const std::string& name() const { return name_; }
  // The text that ends a turn, "<|im_end|>".
  const std::string& end_of_turn() const { return end_of_turn_; }

 private:
  std::string name_;
  std::string end_of_turn_;
  std::string default_system_;  // the system turn the template injects when there is none
};

}  // namespace nibble::text
