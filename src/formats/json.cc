// SPDX-License-Identifier: Apache-2.0
// Built by our own handler of parse events: nlohmann's keeps the last of two equal keys, has no
// limit of depth, and fills ordered objects in quadratic time.
#include "formats/json.h"

#include <cstring>
#include <iterator>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/status.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

constexpr std::size_t kMaxDepth = 64;

// An input iterator that tells how far the parser has read.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

class Builder {
 public:
  Builder(std::string_view where, std::uint64_t base, const char* begin, const char* const* reached)
      : where_(where), base_(base), begin_(begin), reached_(reached) {}

  Json take_result() { return std::move(result_); }

  // The events of nlohmann::json_sax.
  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(std::int64_t value) { return add(value); }
  bool number_unsigned(std::uint64_t value) { return add(value); }
  bool number_float(double value, const std::string& /*text*/) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t& /*value*/) { return false; }
  bool start_object(std::size_t /*count*/) { return open(true); }
  bool start_array(std::size_t /*count*/) { return open(false); }

  bool key(std::string& name) {
    Frame& frame = stack_.back();
    if (!frame.keys.insert(name).second) {
      fail(StatusCode::kCorrupt, "{}: duplicate key '{}' at offset {}", where_, printable(name),
           offset());
    }
    frame.names.push_back(std::move(name));
    return true;
  }

  bool end_object() {
    Frame frame = pop();
    Json::object_t object;
    object.reserve(frame.values.size());
    // The vector under the ordered map: its own insertion searches all keys each time.
    std::vector<Json::object_t::value_type>& members = object;
    for (std::size_t i = 0; i < frame.values.size(); ++i) {
      members.emplace_back(std::move(frame.names[i]), std::move(frame.values[i]));
    }
    return add(std::move(object));
  }

  bool end_array() { return add(Json::array_t(pop().values)); }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) {
    // "[json.exception...] parse error at line 1, column 2: syntax error while ..."; the position
    // counts from 1. The text behind it may quote the input.
    std::string_view reason = error.what();
    if (const std::size_t colon = reason.find(": "); colon != std::string_view::npos) {
      reason.remove_prefix(colon + 2);
    }
    fail(StatusCode::kCorrupt, "{}: invalid JSON at offset {}: {}", where_,
         base_ + (position == 0 ? 0 : position - 1), printable(reason));
  }

 private:
  struct Frame {
    bool is_object;
    std::vector<Json> values;
    std::vector<std::string> names;  // of an object
    std::unordered_set<std::string> keys;
  };

  std::uint64_t offset() const { return base_ + static_cast<std::uint64_t>(*reached_ - begin_); }

  bool open(bool is_object) {
    if (stack_.size() == kMaxDepth) {
      fail(StatusCode::kCorrupt, "{}: JSON nested deeper than {} at offset {}", where_, kMaxDepth,
           offset());
    }
    stack_.push_back(Frame{is_object, {}, {}, {}});
    return true;
  }

  Frame pop() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    return frame;
  }

  template <class T>
  bool add(T&& value) {
    if (stack_.empty()) {
      result_ = Json(std::forward<T>(value));
    } else {
      stack_.back().values.emplace_back(std::forward<T>(value));
    }
    return true;
  }

  std::string_view where_;
  std::uint64_t base_;
  const char* begin_;
  const char* const* reached_;
  std::vector<Frame> stack_;
  Json result_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where, std::uint64_t base_offset) {
  // nlohmann takes a NUL byte for the end of the input: what follows it would go unread.
  if (const void* nul = std::memchr(text.data(), 0, text.size()); nul != nullptr) {
    fail(StatusCode::kCorrupt, "{}: invalid JSON at offset {}: a NUL byte", where,
         base_offset + static_cast<std::uint64_t>(static_cast<const char*>(nul) - text.data()));
  }
  const char* reached = text.data();
  Builder builder(where, base_offset, text.data(), &reached);
  Json::sax_parse(CountingIterator(text.data(), &reached),
                  CountingIterator(text.data() + text.size(), &reached), &builder);
  return builder.take_result();
}

}  // namespace nibble::formats
