// SPDX-License-Identifier: Apache-2.0
#include "text/dataset.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>

#include "core/parallel.h"
#include "core/status.h"
#include "formats/json.h"
#include "text/rows.h"

namespace nibble::text {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;
// Lines that are parsed side by side: bounds what is held besides the examples.
constexpr std::size_t kLinesAtOnce = 256;
constexpr std::size_t kBytesAtOnce = std::size_t{32} << 20;

struct Line {
  std::string_view text;
  std::uint64_t offset;  // in the file
  std::int64_t number;   // from 1
};

// The lines that hold something. Refuses one that is too long.
class LineReader {
 public:
  LineReader(std::string_view content, const std::string& name) : content_(content), name_(name) {
    if (content_.starts_with("\xEF\xBB\xBF")) {
      position_ = 3;
    }
  }

  bool next(Line* line) {
    while (position_ < content_.size()) {
      const std::size_t end = std::min(content_.find('\n', position_), content_.size());
      *line = {content_.substr(position_, end - position_), position_, ++number_};
      position_ = end + 1;
      if (line->text.ends_with('\r')) {
        line->text.remove_suffix(1);
      }
      if (line->text.size() > kMaxLineBytes) {
        fail(StatusCode::kCorrupt, "{}, line {}, offset {}: the line has {} bytes (at most {})",
             name_, line->number, line->offset, line->text.size(), kMaxLineBytes);
      }
      if (line->text.find_first_not_of(" \t\r") != std::string_view::npos) {
        return true;
      }
    }
    return false;
  }

 private:
  std::string_view content_;
  const std::string& name_;
  std::size_t position_ = 0;
  std::int64_t number_ = 0;
};

// The state of one reading.
class Loader {
 public:
  Loader(const std::string& name, const RowEncoder& encoder, const DatasetOptions& options)
      : name_(name), encoder_(encoder), options_(options) {}

  void load(std::string_view content) {
    LineReader reader(content, name_);
    std::vector<Line> lines;
    std::size_t bytes = 0;
    Line line;
    for (std::int64_t row = 0; row != options_.max_samples && reader.next(&line); ++row) {
      lines.push_back(line);
      bytes += line.text.size();
      if (lines.size() == kLinesAtOnce || bytes >= kBytesAtOnce) {
        add(lines);
        lines.clear();
        bytes = 0;
      }
    }
    add(lines);
  }

  Dataset take() {
    DatasetReport& report = dataset_.report;
    if (report.rows == 0) {
      fail(StatusCode::kInvalidArgument, "{}: no rows", name_);
    }
    if (report.usable == 0) {
      fail(StatusCode::kInvalidArgument,
           "{}: none of the {} rows ({}) can be trained on: no target token is in {} of them "
           "({} were cut at cutoff_len {}); without a completion or an assistant message "
           "there is nothing to learn (train_on_inputs trains on all tokens)",
           name_, report.rows, report.format, report.no_target, report.truncated,
           options_.cutoff_len);
    }
    report.format = row_format_name(*format_);
    return std::move(dataset_);
  }

 private:
  struct Parsed {
    Row row;
    RowFormat format;
    std::exception_ptr error;
  };

  Parsed parse(const Line& line) const {
    const std::string where = fmt::format("{}, line {}", name_, line.number);
    const formats::Json json = formats::parse_json(line.text, where, line.offset);
    Parsed parsed;
    try {
      parsed.format = row_format(json);
    } catch (const Error& error) {
      fail(StatusCode::kCorrupt, "{}, offset {}: {}", where, line.offset, error.what());
    }
    encoder_.check_model(parsed.format);
    try {
      parsed.row = encoder_.encode(json, parsed.format);
    } catch (const Error& error) {
      fail(StatusCode::kCorrupt, "{}, offset {}: {}", where, line.offset, error.what());
    }
    return parsed;
  }

  void add(const std::vector<Line>& lines) {
    std::vector<Parsed> parsed(lines.size());
    parallel_for(static_cast<std::int64_t>(lines.size()), [&](std::int64_t i) {
      const auto k = static_cast<std::size_t>(i);
      try {
        parsed[k] = parse(lines[k]);
      } catch (...) {  // the first line's error is reported, not the fastest thread's
        parsed[k].error = std::current_exception();
      }
    });
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (parsed[i].error) {
        std::rethrow_exception(parsed[i].error);
      }
      add_row(lines[i], &parsed[i]);
    }
  }

  void add_row(const Line& line, Parsed* parsed) {
    if (format_.value_or(parsed->format) != parsed->format) {
      fail(StatusCode::kCorrupt,
           "{}, line {}, offset {}: a row of the format {}, those before are {}", name_,
           line.number, line.offset, row_format_name(parsed->format), row_format_name(*format_));
    }
    format_ = parsed->format;
    DatasetReport& report = dataset_.report;
    report.format = row_format_name(parsed->format);
    Example& example = parsed->row.example;
    ++report.rows;
    report.double_bos += parsed->row.double_bos ? 1 : 0;
    report.dropped_bytes += static_cast<std::int64_t>(parsed->row.dropped_bytes);
    if (static_cast<std::int64_t>(example.ids.size()) > options_.cutoff_len) {
      ++report.truncated;
      const auto length = static_cast<std::size_t>(options_.cutoff_len);
      example.ids.resize(length);
      example.is_target.resize(length);
    }
    const std::int64_t targets = example.targets();
    if (targets == 0) {
      ++report.no_target;
      return;
    }
    ++report.usable;
    report.tokens += static_cast<std::int64_t>(example.ids.size());
    report.targets += targets;
    example.ids.shrink_to_fit();
    example.is_target.shrink_to_fit();
    dataset_.examples.push_back(std::move(example));
  }

  const std::string& name_;
  const RowEncoder& encoder_;
  const DatasetOptions& options_;
  std::optional<RowFormat> format_;
  Dataset dataset_;
};

}  // namespace

std::int64_t Example::targets() const {
  return std::accumulate(is_target.begin(), is_target.end(), std::int64_t{0});
}

Dataset parse_dataset(std::string_view content, const std::string& name, const Tokenizer& tokenizer,
                      const std::optional<ChatTemplate>& chat, const DatasetOptions& options) {
  if (options.cutoff_len < 2) {
    fail(StatusCode::kInvalidArgument, "cutoff_len is {}; a target needs a token before it (>= 2)",
         options.cutoff_len);
  }
  if (options.max_samples == 0 || options.max_samples < -1) {
    fail(StatusCode::kInvalidArgument, "max_samples is {} (expected a count, or -1 for all)",
         options.max_samples);
  }
  const RowEncoder encoder{tokenizer, chat, options.train_on_inputs};
  Loader loader(name, encoder, options);
  loader.load(content);
  return loader.take();
}

Dataset load_dataset(const os::Path& path, const Tokenizer& tokenizer,
                     const std::optional<ChatTemplate>& chat, const DatasetOptions& options) {
  const os::MappedFile file(path);
  const std::string_view content(reinterpret_cast<const char*>(file.bytes().data()),
                                 file.bytes().size());
  return parse_dataset(content, path.string(), tokenizer, chat, options);
}

}  // namespace nibble::text
