// SPDX-License-Identifier: Apache-2.0
#include "text/rows.h"

#include <array>
#include <limits>
#include <utility>

#include "core/status.h"
#include "formats/text_safety.h"

namespace nibble::text {
namespace {

using formats::Json;

constexpr std::int64_t kIgnored = -100;  // in labels, as the peers write it

struct FormatKeys {
  RowFormat format;
  std::string_view name;
  std::array<std::string_view, 2> keys;  // all are needed
};
constexpr std::array<FormatKeys, 4> kFormats{{
    {RowFormat::kMessages, "messages", {"messages", ""}},
    {RowFormat::kPromptCompletion, "prompt/completion", {"prompt", "completion"}},
    {RowFormat::kText, "text", {"text", ""}},
    {RowFormat::kInputIds, "input_ids", {"input_ids", "labels"}},
}};

std::string keys_of(const Json& row) {
  std::string keys;
  for (const auto& [key, value] : row.items()) {
    keys += fmt::format("{}'{}'", keys.empty() ? "" : ", ", formats::printable(key));
    if (keys.size() > 200) {
      return keys + ", ...";
    }
  }
  return keys.empty() ? "none" : keys;
}

const std::string& string_at(const Json& object, const char* key, std::string_view where) {
  const auto found = object.find(key);
  if (found == object.end()) {
    fail(StatusCode::kCorrupt, "{} has no '{}'", where, key);
  }
  if (!found->is_string()) {
    fail(StatusCode::kCorrupt, "{}: '{}' is {}, not a string", where, key, found->type_name());
  }
  return found->get_ref<const std::string&>();
}

// What would have to be rendered and is not: left out in silence it would teach a model to answer
// without what it was given. Exports of datasets hold the keys with null.
void refuse_set(const Json& object, std::initializer_list<const char*> keys,
                std::string_view where) {
  for (const char* key : keys) {
    if (const auto found = object.find(key); found != object.end() && !found->is_null()) {
      fail(StatusCode::kCorrupt, "{} has '{}', and tools are not supported", where, key);
    }
  }
}

// "train": true or false, or OpenAI's "weight": 1 or 0.
std::optional<bool> train_mark(const Json& message, std::string_view where) {
  const auto train = message.find("train"), weight = message.find("weight");
  if (train != message.end() && weight != message.end()) {
    fail(StatusCode::kCorrupt, "{} has both 'train' and 'weight'", where);
  }
  if (train != message.end()) {
    if (!train->is_boolean()) {
      fail(StatusCode::kCorrupt, "{}: 'train' is {}, not a boolean", where, train->type_name());
    }
    return train->get<bool>();
  }
  if (weight != message.end()) {
    if (!weight->is_number_integer() || (*weight != 0 && *weight != 1)) {
      fail(StatusCode::kCorrupt, "{}: 'weight' is {}, neither 0 nor 1", where,
           formats::printable(weight->dump().substr(0, 40)));
    }
    return *weight == 1;
  }
  return std::nullopt;
}

std::vector<Message> read_messages(const Json& row) {
  refuse_set(row, {"tools", "functions"}, "the row");
  const Json& list = row.at("messages");
  if (!list.is_array() || list.empty()) {
    fail(StatusCode::kCorrupt, "'messages' is {}, not a list of messages",
         list.is_array() ? "empty" : list.type_name());
  }
  std::vector<Message> messages;
  for (const Json& entry : list) {
    const std::string where = fmt::format("message {}", messages.size());
    if (!entry.is_object()) {
      fail(StatusCode::kCorrupt, "{} is {}, not an object", where, entry.type_name());
    }
    refuse_set(entry, {"tool_calls", "function_call"}, where);
    Message message{string_at(entry, "role", where), string_at(entry, "content", where)};
    if (const auto mark = train_mark(entry, where); mark) {
      message.train = *mark;
      if (message.train && message.role != "assistant") {
        fail(StatusCode::kCorrupt,
             "{}: '{}' asks for training, but only assistant messages are trained", where,
             entry.contains("train") ? "train" : "weight");
      }
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

std::int64_t integer(const Json& value, std::string_view key, std::size_t i) {
  if (!value.is_number_integer()) {
    fail(StatusCode::kCorrupt, "{}[{}] is not an integer", key, i);
  }
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return std::numeric_limits<std::int64_t>::max();
  }
  return value.get<std::int64_t>();
}

// Labels are the ids themselves or -100; the shift by one is ours to do, as it is the peers'.
Example read_ids(const Json& row, std::int32_t vocabulary_size) {
  const Json &ids = row.at("input_ids"), &labels = row.at("labels");
  if (!ids.is_array() || !labels.is_array() || ids.size() != labels.size()) {
    fail(StatusCode::kCorrupt, "'input_ids' and 'labels' are not two lists of the same length");
  }
  Example example;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::int64_t id = integer(ids[i], "input_ids", i),
                       label = integer(labels[i], "labels", i);
    if (id < 0 || id >= vocabulary_size) {
      fail(StatusCode::kCorrupt, "input_ids[{}] is {}, but the vocabulary has {} tokens", i, id,
           vocabulary_size);
    }
    if (label != id && label != kIgnored) {
      fail(StatusCode::kCorrupt, "labels[{}] is {}, neither input_ids[{}] = {} nor {}", i, label, i,
           id, kIgnored);
    }
    example.ids.push_back(static_cast<std::int32_t>(id));
    example.is_target.push_back(label == id);
  }
  return example;
}

// Nothing predicts the first token; of two BOS one is too many (it begins the sequence twice).
void finish(std::int32_t bos, Row* row) {
  Example& example = row->example;
  if (bos >= 0 && example.ids.size() >= 2 && example.ids[0] == bos && example.ids[1] == bos) {
    example.ids.erase(example.ids.begin());
    example.is_target.erase(example.is_target.begin());
    row->double_bos = true;
  }
  if (!example.is_target.empty()) {
    example.is_target[0] = 0;
  }
}

}  // namespace

std::string_view row_format_name(RowFormat format) {
  return kFormats[static_cast<std::size_t>(format)].name;
}

RowFormat row_format(const Json& row) {
  if (!row.is_object()) {
    fail(StatusCode::kCorrupt, "the row is {}, not an object", row.type_name());
  }
  const FormatKeys* found = nullptr;
  for (const FormatKeys& format : kFormats) {
    int present = 0, needed = 0;
    std::string_view missing;
    for (const std::string_view key : format.keys) {
      needed += key.empty() ? 0 : 1;
      if (!key.empty() && row.contains(key)) {
        ++present;
      } else if (!key.empty()) {
        missing = key;
      }
    }
    if (present == 0) {
      continue;
    }
    if (found != nullptr) {
      fail(StatusCode::kCorrupt, "the row has keys of two formats, {} and {}", found->name,
           format.name);
    }
    if (present != needed) {
      fail(StatusCode::kCorrupt, "the row is of the format {} but has no '{}'", format.name,
           missing);
    }
    found = &format;
  }
  if (found == nullptr) {
    fail(StatusCode::kCorrupt,
         "the row has none of 'messages'; 'prompt' and 'completion'; 'text'; 'input_ids' and "
         "'labels' (its keys: {})",
         keys_of(row));
  }
  return found->format;
}

void RowEncoder::check_model(RowFormat format) const {
  if (format == RowFormat::kMessages && !chat) {
    fail(StatusCode::kInvalidArgument,
         "rows of messages need a chat template, and none is given (--chat-template)");
  }
  const bool text = format == RowFormat::kPromptCompletion || format == RowFormat::kText;
  if (text && tokenizer.special().eos < 0) {
    fail(StatusCode::kInvalidArgument,
         "rows of text end with EOS, and the model names none (tokenizer.ggml.eos_token_id)");
  }
}

RowEncoder::Text RowEncoder::rendered(const Json& row, RowFormat format) const {
  if (format == RowFormat::kMessages) {
    RenderedChat rendered = chat->render(read_messages(row), false);
    // The template closes every turn; the text's own end is not the model's business.
    return {std::move(rendered.text), std::move(rendered.completions), train_on_inputs,
            tokenizer.special().add_eos};
  }
  if (format == RowFormat::kText) {
    return {string_at(row, "text", "the row"), {}, true, true};
  }
  std::string text = string_at(row, "prompt", "the row");
  const auto begin = static_cast<std::uint32_t>(text.size());
  text += string_at(row, "completion", "the row");
  const auto end = static_cast<std::uint32_t>(text.size());
  return {std::move(text), {{begin, end}}, train_on_inputs, true};
}

Row RowEncoder::encode_text(const Text& text) const {
  const SpecialIds& special = tokenizer.special();
  Row row;
  const std::vector<Token> tokens = tokenizer.encode(text.text, true, &row.dropped_bytes);
  Example& example = row.example;
  example.ids.reserve(tokens.size() + 2);
  example.is_target.reserve(tokens.size() + 2);
  if (special.add_bos) {
    example.ids.push_back(special.bos);
    example.is_target.push_back(text.all_targets);
  }
  auto span = text.completions.begin();  // in order, like the tokens
  for (const Token& token : tokens) {
    while (span != text.completions.end() && span->end <= token.begin) {
      ++span;
    }
    // A token that straddles the beginning of a completion carries some of the prompt: not trained.
    const bool inside =
        span != text.completions.end() && token.begin >= span->begin && token.end <= span->end;
    example.ids.push_back(token.id);
    example.is_target.push_back(text.all_targets || inside);
  }
  if (text.append_eos && (example.ids.empty() || example.ids.back() != special.eos)) {
    example.ids.push_back(special.eos);
    example.is_target.push_back(1);
  }
  return row;
}

Row RowEncoder::encode(const Json& row, RowFormat format) const {
  Row result;
  if (format == RowFormat::kInputIds) {
    result.example = read_ids(row, tokenizer.vocabulary_size());
  } else {
    result = encode_text(rendered(row, format));
  }
  finish(tokenizer.special().bos, &result);
  return result;
}

}  // namespace nibble::text
