// SPDX-License-Identifier: Apache-2.0
#include "text/jinja_items.h"

#include <fmt/format.h>

namespace nibble::text {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// A word of an expression. Strings are kept apart from names that look alike.
struct Word {
  bool is_string;
  std::string text;
};

// The characters of a string literal whose opening quote stands at *i. False: an escape or an end
// that this reader does not know.
bool read_string(std::string_view source, std::size_t* i, std::string* out) {
  const char quote = source[*i];
  for (++*i; *i < source.size(); ++*i) {
    char c = source[*i];
    if (c == quote) {
      ++*i;
      return true;
    }
    if (c == '\\') {
      if (++*i == source.size()) {
        return false;
      }
      switch (source[*i]) {
        case 'n':
          c = '\n';
          break;
        case 't':
          c = '\t';
          break;
        case '\\':
        case '\'':
        case '"':
          c = source[*i];
          break;
        default:
          return false;
      }
    }
    out->push_back(c);
  }
  return false;
}

// Collects the items of one template.
class Reader {
 public:
  explicit Reader(std::string_view source) : source_(source) {
    // Jinja drops one newline at the very end.
    if (source_.ends_with('\n')) {
      source_.remove_suffix(1);
    }
  }

  bool read() {
    while (position_ < source_.size()) {
      const std::size_t tag = find_tag();
      std::string_view text = source_.substr(position_, tag - position_);
      if (tag == source_.size()) {
        literal(trimmed_left(text));
        return true;
      }
      const char kind = source_[tag + 1];
      if (kind == '#') {
        return refuse("it has a comment");
      }
      position_ = tag + 2;
      char sign = ' ';
      if (position_ < source_.size() && (source_[position_] == '-' || source_[position_] == '+')) {
        sign = source_[position_++];
      }
      text = trimmed_left(text);
      literal(trimmed_right(text, sign, kind == '%'));
      std::vector<Word> words;
      if (!read_words(kind == '%' ? '%' : '}', &words)) {
        return false;
      }
      if (!(kind == '%' ? statement(words) : output(words))) {
        return false;
      }
    }
    return true;
  }

  std::vector<JinjaItem> items;
  std::string reason;

 private:
  bool refuse(std::string why) {
    reason = std::move(why);
    return false;
  }

  std::size_t find_tag() const {
    for (std::size_t i = position_; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return source_.size();
  }

  // What the tag before leaves of the text behind it: "-%}" eats all blanks, "%}" one newline.
  std::string_view trimmed_left(std::string_view text) const {
    if (eat_blanks_) {
      while (!text.empty() && is_blank(text.front())) {
        text.remove_prefix(1);
      }
    } else if (eat_newline_ && text.starts_with('\n')) {
      text.remove_prefix(1);
    }
    return text;
  }

  // What the tag behind leaves of the text: "{%-" eats all blanks, "{%" those between the beginning
  // of its line and itself.
  std::string_view trimmed_right(std::string_view text, char sign, bool block) const {
    const bool all = sign == '-';
    std::string_view cut = text;
    while (!cut.empty() && (all ? is_blank(cut.back()) : cut.back() == ' ' || cut.back() == '\t')) {
      cut.remove_suffix(1);
    }
    const bool line_begins =
        cut.empty() ? text.data() == source_.data() || text.data()[-1] == '\n' : cut.back() == '\n';
    return all || (block && sign != '+' && line_begins) ? cut : text;
  }

  // The words up to the tag's end, "%}" or "}}".
  bool read_words(char close, std::vector<Word>* words) {
    while (position_ < source_.size()) {
      const char c = source_[position_];
      if (is_blank(c)) {
        ++position_;
      } else if (source_.substr(position_).starts_with(close == '%' ? "%}" : "}}")) {
        end_tag(2, false, close == '%');
        return true;
      } else if (source_.substr(position_).starts_with(close == '%' ? "-%}" : "-}}")) {
        end_tag(3, true, false);
        return true;
      } else if (c == '\'' || c == '"') {
        std::string text;
        if (!read_string(source_, &position_, &text)) {
          return refuse("it has a string that is not read here");
        }
        words->push_back({true, std::move(text)});
      } else if (is_word(c)) {
        const std::size_t begin = position_;
        while (position_ < source_.size() && is_word(source_[position_])) {
          ++position_;
        }
        words->push_back({false, std::string(source_.substr(begin, position_ - begin))});
      } else {
        const bool two = position_ + 1 < source_.size() && source_[position_ + 1] == '=' &&
                         (c == '=' || c == '!' || c == '<' || c == '>');
        words->push_back({false, std::string(source_.substr(position_, two ? 2 : 1))});
        position_ += two ? 2 : 1;
      }
    }
    return refuse("a tag is not closed");
  }

  void end_tag(std::size_t length, bool eat_blanks, bool eat_newline) {
    position_ += length;
    eat_blanks_ = eat_blanks;
    eat_newline_ = eat_newline;
  }

  void literal(std::string_view text) {
    if (text.empty()) {
      return;
    }
    if (items.empty() || items.back().kind != JinjaItem::Kind::kLiteral) {
      items.push_back({JinjaItem::Kind::kLiteral, {}});
    }
    items.back().content += text;
  }

  // One blank between the words; message.role (and .content) as message['role'].
  static std::string joined(const std::vector<Word>& words, std::size_t begin, std::size_t end) {
    std::string out;
    for (std::size_t i = begin; i < end; ++i) {
      out += out.empty() ? "" : " ";
      const bool member = i > begin && i + 1 < end && words[i].text == "." && !words[i].is_string &&
                          !words[i + 1].is_string &&
                          (words[i + 1].text == "role" || words[i + 1].text == "content");
      if (member) {
        out += fmt::format("[ '{}' ]", words[++i].text);
      } else if (words[i].is_string) {
        // A quote inside is doubled, so that no string can imitate what follows a string.
        out += '\'';
        for (const char c : words[i].text) {
          out.append(c == '\'' ? 2 : 1, c);
        }
        out += '\'';
      } else {
        out += words[i].text;
      }
    }
    return out;
  }

  bool statement(const std::vector<Word>& words) {
    items.push_back({JinjaItem::Kind::kStatement, joined(words, 0, words.size())});
    return true;
  }

  bool output(const std::vector<Word>& words) {
    for (std::size_t begin = 0; begin <= words.size();) {
      std::size_t end = begin;
      while (end < words.size() &&
             (words[end].is_string || (words[end].text != "+" && words[end].text != "~"))) {
        if (!words[end].is_string && (words[end].text == "(" || words[end].text == "|")) {
          return refuse("it prints a call or a filter");  // binds tighter than the split below
        }
        ++end;
      }
      if (end == begin) {
        return refuse("it prints an empty expression");
      }
      if (end == begin + 1 && words[begin].is_string) {
        literal(words[begin].text);
      } else {
        items.push_back({JinjaItem::Kind::kOutput, joined(words, begin, end)});
      }
      begin = end + 1;
    }
    return true;
  }

  std::string_view source_;
  std::size_t position_ = 0;
  bool eat_blanks_ = false, eat_newline_ = false;
};

}  // namespace

std::optional<std::vector<JinjaItem>> jinja_items(std::string_view source, std::string* reason) {
  Reader reader(source);
  if (!reader.read()) {
    *reason = reader.reason;
    return std::nullopt;
  }
  return std::move(reader.items);
}

}  // namespace nibble::text
