// SPDX-License-Identifier: Apache-2.0
// Answers questions about text, one JSON object a line, for the oracle that compares the answers
// with the peers': text_dump MODEL.gguf < questions > answers.
//   {"op": "encode", "text", "special"}           -> {"ids", "begin", "end", "dropped"}
//   {"op": "decode", "ids"}                       -> {"hex"}
//   {"op": "render", "template"?, "messages", "prompt"}  -> {"text", "spans"}; the model's own
//                                                    template unless one is given
// or {"error"}.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "formats/gguf.h"
#include "formats/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace {

using nibble::formats::Json;

Json encode(const nibble::text::Tokenizer& tokenizer, const Json& question) {
  std::uint64_t dropped = 0;
  Json ids = Json::array(), begin = Json::array(), end = Json::array();
  for (const auto& token : tokenizer.encode(question.at("text").get<std::string>(),
                                            question.at("special").get<bool>(), &dropped)) {
    ids.push_back(token.id);
    begin.push_back(token.begin);
    end.push_back(token.end);
  }
  return {{"ids", ids}, {"begin", begin}, {"end", end}, {"dropped", dropped}};
}

Json decode(const nibble::text::Tokenizer& tokenizer, const Json& question) {
  std::string hex;
  for (const char c : tokenizer.decode(question.at("ids").get<std::vector<std::int32_t>>(), true)) {
    hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  }
  return {{"hex", hex}};
}

Json render(const std::string& own_template, const Json& question) {
  const auto chat = nibble::text::ChatTemplate::recognise(question.value("template", own_template));
  std::vector<nibble::text::Message> messages;
  for (const Json& message : question.at("messages")) {
    messages.push_back(
        {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  }
  const auto rendered = chat.render(messages, question.at("prompt").get<bool>());
  Json spans = Json::array();
  for (const auto& span : rendered.completions) {
    spans.push_back({span.begin, span.end});
  }
  return {{"text", rendered.text}, {"spans", spans}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: text_dump MODEL.gguf < questions > answers\n", stderr);
    return 2;
  }
  const nibble::formats::GgufFile file{std::string(argv[1])};
  const nibble::text::Tokenizer tokenizer(file);
  const std::string own_template(file.string_or("tokenizer.chat_template", ""));
  std::string line;
  while (std::getline(std::cin, line)) {
    Json answer;
    try {
      const Json question = nibble::formats::parse_json(line, "question");
      const auto op = question.at("op").get<std::string>();
      answer = op == "encode"   ? encode(tokenizer, question)
               : op == "decode" ? decode(tokenizer, question)
                                : render(own_template, question);
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << '\n';
  }
  return 0;
}
