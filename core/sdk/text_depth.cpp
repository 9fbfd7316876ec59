#include "millrace/text_depth.h"

#include <algorithm>
#include <vector>

namespace millrace {

namespace {

TextFault fault_at(std::string_view text, std::size_t at, std::string message) {
  const std::string_view before = text.substr(0, at);
  const std::size_t line_start = before.rfind('\n');
  return {static_cast<std::size_t>(std::ranges::count(before, '\n')) + 1,
          at - (line_start == std::string_view::npos ? 0 : line_start + 1) + 1, std::move(message)};
}

std::optional<TextFault> too_long(std::string_view text) {
  if (text.size() <= kLongestText) return std::nullopt;
  return TextFault{1, 1,
                   "it has " + std::to_string(text.size()) + " bytes; expected at most " +
                       std::to_string(kLongestText)};
}

TextFault too_deep(std::string_view text, std::size_t at, const char* what) {
  return fault_at(text, at,
                  "nested deeper than " + std::to_string(kDeepestText) + " levels (" + what + ')');
}

/// Goes through TOML as far as a parser would: up to the first error nothing is mistaken.
class TomlScan {
 public:
  explicit TomlScan(std::string_view text) : text_(text) {}

  std::optional<TextFault> run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        line_begins_ = false;
        skip_string(c);
        continue;
      }
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
        continue;
      }
      if (!take(c)) {
        return too_deep(text_, at_,
                        "each part of a dotted key, each list and each inline table is one");
      }
      ++at_;
    }
    return std::nullopt;
  }

 private:
  /// One character outside of strings and comments; false: too deep here.
  bool take(char c) {
    switch (c) {
      case ' ':
      case '\t':
      case '\r':
        return true;
      case '\n':
        parts_ = 1;
        if (open_.empty()) {
          if (header_) base_ = header_parts_;
          header_ = false;
          line_begins_ = true;
          level_ = base_;
        }
        return true;
      case '.':
        line_begins_ = false;
        ++parts_;
        if (header_) header_parts_ = parts_;
        return parts_ <= kDeepestText;
      case '=':
        level_ += parts_;
        parts_ = 1;
        return level_ <= kDeepestText;
      case ',':
        parts_ = 1;
        level_ = open_.empty() ? base_ : open_.back();
        return true;
      case '[':
        if (line_begins_ && open_.empty()) {
          header_ = true;
          header_parts_ = parts_ = 1;
          line_begins_ = false;
          return true;
        }
        return header_ || open();
      case '{':
        return open();
      case ']':
      case '}':
        parts_ = 1;
        if (!open_.empty()) open_.pop_back();
        return true;
      default:
        line_begins_ = false;
        return true;
    }
  }

  bool open() {
    line_begins_ = false;
    parts_ = 1;
    open_.push_back(++level_);
    return level_ <= kDeepestText;
  }

  void skip_string(char quote) {
    const bool escapes = quote == '"';
    const bool lines = text_.substr(at_, 3) == std::string_view(escapes ? "\"\"\"" : "'''");
    at_ += lines ? 3 : 1;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (escapes && c == '\\') {
        at_ += 2;
        continue;
      }
      if (!lines && c == '\n') return;  // an error that ends the parser's work, too
      if (c != quote) {
        ++at_;
        continue;
      }
      if (!lines) {
        ++at_;
        return;
      }
      std::size_t quotes = 0;
      while (at_ < text_.size() && text_[at_] == quote && quotes < 5) {
        ++at_;
        ++quotes;
      }
      if (quotes >= 3) return;
    }
    at_ = text_.size();
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool line_begins_ = true;  ///< only space so far in this line, outside of lists
  bool header_ = false;      ///< this line is a [header]
  std::size_t header_parts_ = 0;
  std::size_t base_ = 0;           ///< levels of the header that keys are below
  std::size_t parts_ = 1;          ///< of the key that is being read
  std::size_t level_ = 0;          ///< of the value that is being read
  std::vector<std::size_t> open_;  ///< the levels of open lists and inline tables
};

}  // namespace

std::optional<TextFault> toml_fault(std::string_view text) {
  if (auto fault = too_long(text)) return fault;
  return TomlScan(text).run();
}

std::optional<TextFault> json_fault(std::string_view text) {
  if (auto fault = too_long(text)) return fault;
  std::size_t level = 0;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted && c == '\\') {
      ++at;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '{' || c == '[')) {
      if (++level > kDeepestText) return too_deep(text, at, "each list and each object is one");
    } else if (!quoted && (c == '}' || c == ']') && level > 0) {
      --level;
    }
  }
  return std::nullopt;
}

}  // namespace millrace
