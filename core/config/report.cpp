#include "config/report.h"

#include <algorithm>

#include <fmt/format.h>

namespace millrace::host {

namespace {

/// Text of a file that may hold anything, without what would control a terminal; every byte keeps
/// its place.
std::string printable(std::string_view text) {
  std::string out(text);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n') || byte == 0x7f) out[i] = '?';
    // U+0080 to U+009F in UTF-8.
    if (i > 0 && byte >= 0x80 && byte < 0xa0 && text[i - 1] == '\xc2') out[i - 1] = out[i] = '?';
  }
  return out;
}

}  // namespace

std::uint32_t Report::add_source(std::string name, std::string text) {
  sources_.push_back({std::move(name), std::move(text)});
  return static_cast<std::uint32_t>(sources_.size() - 1);
}

void Report::add(Position at, std::string message, std::string expected, std::string meant) {
  entries_.push_back({at, std::move(message), std::move(expected), std::move(meant)});
}

void Report::warn(Position at, std::string message, std::string expected, std::string meant) {
  warnings_.push_back({at, std::move(message), std::move(expected), std::move(meant)});
}

std::string_view Report::line(Position at) const {
  if (at.line == 0 || at.source >= sources_.size()) return {};
  std::string_view rest = sources_[at.source].text;
  for (std::uint32_t number = 1; number < at.line; ++number) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return {};
    rest.remove_prefix(end + 1);
  }
  rest = rest.substr(0, rest.find('\n'));
  if (rest.ends_with('\r')) rest.remove_suffix(1);
  return rest;
}

std::string Report::place(Position at) const {
  const std::string& name = sources_.at(at.source).name;
  return at.line == 0 ? name : fmt::format("{}:{}:{}", name, at.line, at.column);
}

std::string Report::text() const {
  struct Told {
    const Entry* entry;
    const char* kind;
  };
  std::vector<Told> ordered;
  for (const Entry& entry : entries_) ordered.push_back({&entry, "error"});
  for (const Entry& entry : warnings_) ordered.push_back({&entry, "warning"});
  std::ranges::stable_sort(ordered, {}, [](const Told& told) { return told.entry->at; });

  std::string out;
  for (const auto& [entry, kind] : ordered) {
    const Position at = entry->at;
    out += fmt::format("{}: {}: {}\n", place(at), kind, printable(entry->message));
    if (const std::string source_line = printable(line(at)); !source_line.empty()) {
      out += fmt::format("{:5} | {}\n      | ", at.line, source_line);
      // Tabs are kept so that the caret stands below its column whatever their width is.
      for (std::uint32_t i = 0; i + 1 < at.column; ++i) {
        out += i < source_line.size() && source_line[i] == '\t' ? '\t' : ' ';
      }
      out += '^';
      const auto room = source_line.size() >= at.column ? source_line.size() - at.column : 0;
      out.append(std::min<std::size_t>(at.length > 0 ? at.length - 1 : 0, room), '~');
      out += '\n';
    }
    if (!entry->expected.empty()) out += fmt::format("      = expected {}\n", entry->expected);
    if (!entry->meant.empty()) out += fmt::format("      = did you mean '{}'?\n", entry->meant);
  }
  return out;
}

}  // namespace millrace::host
