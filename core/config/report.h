#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::host {

/// A place in a source text of a Report; lines and columns count from 1. Line 0: the text as a
/// whole.
struct Position {
  std::uint32_t source = 0;
  std::uint32_t line = 0;
  std::uint32_t column = 0;
  std::uint32_t length = 1;  ///< in columns, for the underline

  friend auto operator<=>(const Position&, const Position&) = default;
};

/// All that is wrong with a pipeline file, gathered so that one look shows everything.
class Report {
 public:
  struct Entry {
    Position at;
    std::string message;
    std::string expected;  ///< "an integer from 1 to 65535", or empty
    std::string meant;     ///< what was probably meant, or empty
  };

  /// `name` is what errors begin with: a file's path, "--set a.b=c". The number goes into Position.
  std::uint32_t add_source(std::string name, std::string text);

  void add(Position at, std::string message, std::string expected = {}, std::string meant = {});
  /// What is no error, and keeps nothing from running, but may not be what was meant.
  void warn(Position at, std::string message, std::string expected = {}, std::string meant = {});

  /// What stands from `begin` to before `end` is a secret: lines are shown without it. References
  /// in it, ${NAME}, stay: they are no secrets.
  void hide(Position begin, Position end);
  /// The rest of that line from that column on.
  void hide_rest_of_line(Position begin);

  /// Takes out what turned out not to matter.
  template <class Predicate>
  void remove_if(Predicate predicate) {
    std::erase_if(entries_, predicate);
    std::erase_if(warnings_, predicate);
  }

  // Errors alone:
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }

  [[nodiscard]] const std::vector<Entry>& warnings() const noexcept { return warnings_; }
  /// "pipelines/agent.toml:3:7", or the name alone for the text as a whole.
  [[nodiscard]] std::string place(Position at) const;
  /// The text of a line without its end, or empty.
  [[nodiscard]] std::string_view line(Position at) const;

  /// Errors and warnings in the order of the file: `file:line:column: error: message`, the line, a
  /// caret line, and `expected` and `did you mean` where there is something to say. Beyond the
  /// first kMostShown only their number.
  [[nodiscard]] std::string text() const;

  static constexpr std::size_t kMostShown = 100;

 private:
  struct Source {
    std::string name;
    std::string text;
    std::vector<std::size_t> lines;  ///< where each begins
  };
  struct Hidden {
    Position begin;
    Position end;
  };
  /// A line as it may be shown, and where the place in it is then.
  struct Shown {
    std::string line;
    std::uint32_t column;
    std::uint32_t length;
  };
  [[nodiscard]] Shown shown(Position at) const;

  std::vector<Source> sources_;
  std::vector<Entry> entries_;
  std::vector<Entry> warnings_;
  std::vector<Hidden> hidden_;
};

}  // namespace millrace::host
