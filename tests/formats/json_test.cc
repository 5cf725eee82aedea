// SPDX-License-Identifier: Apache-2.0
#include "formats/json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "formats/text_safety.h"
#include "tests/support/expect_error.h"

namespace nibble {
namespace {

using formats::Json;
using formats::parse_json;
using test::expect_error;

void refuses(std::string_view json, const std::vector<std::string>& fragments) {
  SCOPED_TRACE(formats::printable(json));
  std::vector<std::string> all = fragments;
  all.insert(all.end(), {"x.json: ", "offset "});
  expect_error(StatusCode::kCorrupt, all, [&] { parse_json(json, "x.json"); });
}

TEST(Json, KeepsOrderAndTypes) {
  const Json json = parse_json(R"( {"z":1,"a":[-2,1.5,true,null,"s\u00e9"],"m":{}} )", "x");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[-2,1.5,true,null,"sé"],"m":{}})");
  EXPECT_TRUE(json.at("z").is_number_unsigned());
  EXPECT_TRUE(json.at("a")[0].is_number_integer());
  EXPECT_EQ(parse_json("18446744073709551615", "x").get<std::uint64_t>(), ~std::uint64_t{0});
  EXPECT_EQ(parse_json("\xEF\xBB\xBF{}", "x"), Json::object());  // a BOM is skipped
  EXPECT_EQ(parse_json("{\r\n\"a\":\r\n1}\r\n", "x").at("a"), 1);
  EXPECT_EQ(parse_json(R"("a\u0000b")", "x").get<std::string>(), std::string("a\0b", 3));
}

TEST(Json, RefusesDuplicateKeys) {
  refuses(R"({"a":1,"a":2})", {"duplicate key 'a'", "offset 10"});
  refuses(R"([{"b":{"k":1,"x":2,"k":3}}])", {"duplicate key 'k'"});
  refuses(R"({"a":1,"\u0061":2})", {"duplicate key 'a'"});
  EXPECT_NO_THROW(parse_json(R"([{"a":1},{"a":{"a":1}}])", "x"));
}

TEST(Json, RefusesDepthBeyond64) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), "x"));
  refuses(nested(65), {"deeper than 64", "offset 65"});
  refuses(std::string(10'000'000, '['), {"deeper than 64"});
  std::string objects;
  for (int i = 0; i < 65; ++i) {
    objects += R"({"a":)";
  }
  refuses(objects, {"deeper than 64"});
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* bad : {"",
                          " ",
                          "{",
                          "}",
                          "[1,]",
                          "{\"a\":1,}",
                          "{'a':1}",
                          "{a:1}",
                          "[1 2]",
                          "{} {}",
                          "01",
                          "+1",
                          ".5",
                          "1.",
                          "1e",
                          "0x10",
                          "NaN",
                          "Infinity",
                          "-Infinity",
                          "[nan]",
                          "1e999",
                          "-1e999",
                          "\"a",
                          "\"\\x41\"",
                          "\"\\u12\"",
                          "\"\\ud800\"",
                          "\"\\ud800\\u0041\"",
                          "\"\\udc00\"",
                          "\"a\nb\"",
                          "\"a\tb\"",
                          "tru",
                          "nulll",
                          "// c\n1",
                          "[1]/*c*/"}) {
    refuses(bad, {"invalid JSON"});
  }
}

TEST(Json, RefusesInvalidUtf8AndNul) {
  for (const char* bad : {"\"\xFF\"", "\"\xC3\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
                          "\"\xF4\x90\x80\x80\"", "\"\xE2\x82\"", "{\"\x80\":1}"}) {
    refuses(bad, {"invalid JSON"});
  }
  refuses(std::string_view("{}\0{}", 5), {"NUL", "offset 2"});
  refuses(std::string_view("\"a\0b\"", 5), {"NUL", "offset 2"});
}

TEST(Json, OffsetsCountFromTheBase) {
  expect_error(StatusCode::kCorrupt, {"line 3: ", "offset 1001"},
               [] { parse_json("[x]", "line 3", 1000); });
  expect_error(StatusCode::kCorrupt, {"offset 1002"},
               [] { parse_json(std::string_view("[ \0]", 4), "f", 1000); });
}

// A huge or binary token must not fill the message.
TEST(Json, MessagesAreShortAndPrintable) {
  try {
    parse_json("\"" + std::string(1'000'000, 'a') + "\xFF\"", "f");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 300U);
    EXPECT_TRUE(formats::is_valid_utf8(error.what()));
  }
}

TEST(Json, ManyKeysTakeLinearTime) {
  std::string json = "{";
  for (int i = 0; i < 300'000; ++i) {
    json += "\"key" + std::to_string(i) + "\":0,";
  }
  json.back() = '}';
  EXPECT_EQ(parse_json(json, "x").size(), 300'000U);
}

Json arbitrary_json(int depth) {
  switch (*rc::gen::inRange(0, depth > 0 ? 7 : 5)) {
    case 0:
      return nullptr;
    case 1:
      return *rc::gen::arbitrary<bool>();
    case 2:
      return *rc::gen::arbitrary<std::int64_t>();
    case 3:
      return static_cast<double>(*rc::gen::arbitrary<int>()) / 7;
    case 4:
      return *rc::gen::string<std::string>();
    case 5: {
      Json array = Json::array();
      for (int i = *rc::gen::inRange(0, 4); i > 0; --i) {
        array.push_back(arbitrary_json(depth - 1));
      }
      return array;
    }
    default: {
      Json object = Json::object();
      for (int i = *rc::gen::inRange(0, 4); i > 0; --i) {
        object["k" + std::to_string(i)] = arbitrary_json(depth - 1);
      }
      return object;
    }
  }
}

RC_GTEST_PROP(Json, ParsesWhatIsDumped, ()) {
  const Json json = arbitrary_json(4);
  std::string text;
  try {
    text = json.dump();
  } catch (const Json::exception&) {
    RC_DISCARD("a string that is not UTF-8");
  }
  RC_ASSERT(parse_json(text, "x") == json);
}

TEST(TextSafety, FindsTheFirstBadByte) {
  using formats::find_invalid_utf8;
  EXPECT_EQ(find_invalid_utf8(""), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("aé€😀"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("\xF4\x8F\xBF\xBF\xED\x9F\xBF\xEE\x80\x80"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("ab\x80"), 2U);
  EXPECT_EQ(find_invalid_utf8("a\xE0\x80\x80"), 1U);
  EXPECT_EQ(find_invalid_utf8("\xF0\x8F\xBF\xBF"), 0U);
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0U);
  EXPECT_EQ(find_invalid_utf8("\xF5\x80\x80\x80"), 0U);
  EXPECT_EQ(find_invalid_utf8("abc\xE2\x82"), 3U);
  EXPECT_EQ(formats::printable("a\n\x7F\xFFé"), "a\\x0a\\x7f\\xffé");
  EXPECT_LT(formats::printable(std::string(1000, 'x')).size(), 90U);
}

}  // namespace
}  // namespace nibble
