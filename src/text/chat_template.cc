// SPDX-License-Identifier: Apache-2.0
#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/status.h"
#include "formats/text_safety.h"
#include "text/jinja_items.h"

namespace nibble::text {
namespace {

constexpr const char* kChatml = "chatml";
constexpr std::string_view kOpen = "<|im_start|>", kClose = "<|im_end|>";
constexpr std::array<std::string_view, 4> kRoles{"system", "user", "assistant", "tool"};

[[noreturn]] void refuse(std::string_view reason) {
  fail(StatusCode::kUnsupported,
       "the model's chat template is not recognised: {}. Choose a family with --chat-template ({})",
       reason, kChatml);
}

// Walks over a template's items; each step is one thing that a ChatML template may say.
class Walk {
 public:
  explicit Walk(const std::vector<JinjaItem>& items) : items_(items) {}

  bool at(JinjaItem::Kind kind, std::string_view content) const {
    return next_ < items_.size() && items_[next_].kind == kind && items_[next_].content == content;
  }
  bool statement(std::string_view content) { return take(JinjaItem::Kind::kStatement, content); }
  bool output(std::string_view content) { return take(JinjaItem::Kind::kOutput, content); }
  bool literal(std::string_view content) { return take(JinjaItem::Kind::kLiteral, content); }
  bool done() const { return next_ == items_.size(); }

  // A literal that begins and ends so; what stands between goes to *middle.
  bool literal_between(std::string_view begin, std::string_view end, std::string* middle) {
    if (next_ == items_.size() || items_[next_].kind != JinjaItem::Kind::kLiteral) {
      return false;
    }
    const std::string_view text = items_[next_].content;
    if (text.size() < begin.size() + end.size() || !text.starts_with(begin) ||
        !text.ends_with(end)) {
      return false;
    }
    *middle = text.substr(begin.size(), text.size() - begin.size() - end.size());
    ++next_;
    return true;
  }

  // Where the walk stopped, for the message.
  std::string here() const {
    if (done()) {
      return "it ends where more was expected";
    }
    constexpr std::size_t kShown = 60;
    const std::string_view content = items_[next_].content;
    return fmt::format("its part {} '{}' is not ChatML's", next_ + 1,
                       formats::printable(content.substr(0, kShown)));
  }

 private:
  bool take(JinjaItem::Kind kind, std::string_view content) {
    const bool there = at(kind, content);
    next_ += there ? 1 : 0;
    return there;
  }

  const std::vector<JinjaItem>& items_;
  std::size_t next_ = 0;
};

// {% if <condition> %} '<|im_start|>system\n' text '<|im_end|>\n' {% endif %}: the turn that is put
// in front when the conversation does not begin with one.
void default_system_turn(Walk* walk, bool inside_loop, std::string* text) {
  const bool starts =
      inside_loop ? walk->statement("if loop . first and messages [ 0 ] [ 'role' ] != 'system'")
                  : walk->statement("if messages [ 0 ] [ 'role' ] != 'system'");
  if (!starts) {
    return;
  }
  const std::string begin = fmt::format("{}system\n", kOpen), end = fmt::format("{}\n", kClose);
  if (!walk->literal_between(begin, end, text) || !walk->statement("endif")) {
    refuse(walk->here());
  }
  if (text->empty() || text->find(kOpen) != std::string::npos ||
      text->find(kClose) != std::string::npos) {
    refuse("its default system turn is empty or holds more than one turn");
  }
}

// The whole template must be of this form; returns the default system turn ("" if none).
std::string match_chatml(const std::vector<JinjaItem>& items) {
  Walk walk(items);
  std::string system;
  if (walk.statement("if not add_generation_prompt is defined") &&
      !(walk.statement("set add_generation_prompt = false") && walk.statement("endif"))) {
    refuse(walk.here());
  }
  default_system_turn(&walk, false, &system);
  if (!walk.statement("for message in messages")) {
    refuse(walk.here());
  }
  if (system.empty()) {
    default_system_turn(&walk, true, &system);
  }
  const bool turn = walk.literal(kOpen) && walk.output("message [ 'role' ]") &&
                    walk.literal("\n") && walk.output("message [ 'content' ]") &&
                    walk.literal(fmt::format("{}\n", kClose)) && walk.statement("endfor");
  const bool prompt = turn && walk.statement("if add_generation_prompt") &&
                      walk.literal(fmt::format("{}assistant\n", kOpen)) && walk.statement("endif");
  if (!prompt || !walk.done()) {
    refuse(walk.here());
  }
  return system;
}

}  // namespace

ChatTemplate ChatTemplate::recognise(std::string_view jinja) {
  if (jinja.find(kOpen) == std::string_view::npos || jinja.find(kClose) == std::string_view::npos) {
    refuse(fmt::format("it lacks the markers {} and {}", kOpen, kClose));
  }
  std::string reason;
  const auto items = jinja_items(jinja, &reason);
  if (!items) {
    refuse(reason);
  }
  ChatTemplate result = family(kChatml);
  result.default_system_ = match_chatml(*items);
  return result;
}

ChatTemplate ChatTemplate::family(std::string_view name) {
  if (name != kChatml) {
    fail(StatusCode::kInvalidArgument, "unknown chat template '{}' (known: {})",
         formats::printable(name), kChatml);
  }
  ChatTemplate result;
  result.name_ = kChatml;
  result.end_of_turn_ = kClose;
  return result;
}

std::vector<std::string> ChatTemplate::families() { return {kChatml}; }

RenderedChat ChatTemplate::render(const std::vector<Message>& messages,
                                  bool add_generation_prompt) const {
  if (messages.empty()) {
    fail(StatusCode::kInvalidArgument, "a conversation without messages");
  }
  RenderedChat chat;
  const auto turn = [&](std::string_view role, std::string_view content, bool target) {
    chat.text.append(kOpen).append(role).append("\n");
    const std::size_t begin = chat.text.size();
    chat.text.append(content).append(end_of_turn_);
    const std::size_t end = chat.text.size();
    chat.text.append("\n");
    if (end > std::numeric_limits<std::uint32_t>::max()) {
      fail(StatusCode::kInvalidArgument, "a conversation of more than 4 GiB");
    }
    if (target) {
      chat.completions.push_back(
          {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
    }
  };
  if (!default_system_.empty() && messages[0].role != "system") {
    turn("system", default_system_, false);
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      fail(StatusCode::kInvalidArgument, "message {} has the unknown role '{}' (known: {})", i,
           message.role, fmt::join(kRoles, ", "));
    }
    // Text that closes its own turn could speak in another role.
    for (const std::string_view marker : {kOpen, kClose}) {
      if (const std::size_t at = message.content.find(marker); at != std::string::npos) {
        fail(StatusCode::kInvalidArgument,
             "message {} contains the template's own marker {} at byte {} of its content", i,
             marker, at);
      }
    }
    const bool assistant = message.role == "assistant";
    turn(message.role, message.content, assistant && message.train);
  }
  if (add_generation_prompt) {
    chat.text.append(kOpen).append("assistant\n");
  }
  return chat;
}

}  // namespace nibble::text
