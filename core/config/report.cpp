#include "config/report.h"

#include <algorithm>
#include <iterator>
#include <utility>

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

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

/// How much of `text` is a reference that tells nothing but where a value comes from: "${NAME}",
/// "${NAME:?message}", "${file:PATH}", of "${NAME:-default}" what is before the default. 0: `text`
/// does not begin with one.
std::size_t reference_length(std::string_view text) {
  if (!text.starts_with("${")) return 0;
  const std::size_t close = text.find('}');
  std::size_t name_end = 2;
  while (name_end < text.size() && is_name(text[name_end])) ++name_end;
  if (close == std::string_view::npos || name_end == 2 || name_end == text.size()) return 0;
  const std::string_view rest = text.substr(name_end);
  if (rest.starts_with(":-")) return name_end + 2;
  const bool plain =
      rest.starts_with("}") || rest.starts_with(":?") || text.substr(2, name_end - 2) == "file";
  return plain ? close + 1 : 0;
}

std::size_t code_point_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

}  // namespace

std::uint32_t Report::add_source(std::string name, std::string text) {
  std::vector<std::size_t> lines{0};
  for (std::size_t end = text.find('\n'); end != std::string::npos;
       end = text.find('\n', end + 1)) {
    lines.push_back(end + 1);
  }
  sources_.push_back({std::move(name), std::move(text), std::move(lines)});
  return static_cast<std::uint32_t>(sources_.size() - 1);
}

void Report::add(Position at, std::string message, std::string expected, std::string meant) {
  entries_.push_back({at, std::move(message), std::move(expected), std::move(meant)});
}

void Report::warn(Position at, std::string message, std::string expected, std::string meant) {
  warnings_.push_back({at, std::move(message), std::move(expected), std::move(meant)});
}

void Report::hide(Position begin, Position end) { hidden_.push_back({begin, end}); }

void Report::hide_rest_of_line(Position begin) {
  hide(begin, {begin.source, begin.line + 1, 1, 1});
}

Report::Shown Report::shown(Position at) const {
  const std::string_view text = line(at);
  const auto touches = [&](const Hidden& hidden) {
    return hidden.begin.source == at.source && hidden.begin.line <= at.line &&
           at.line <= hidden.end.line;
  };
  std::vector<Hidden> here;
  std::ranges::copy_if(hidden_, std::back_inserter(here), touches);
  if (here.empty()) return {printable(text), at.column, at.length};
  const auto is_hidden = [&](std::uint32_t column) {
    const std::pair place(at.line, column);
    return std::ranges::any_of(here, [&](const Hidden& hidden) {
      return std::pair(hidden.begin.line, hidden.begin.column) <= place &&
             place < std::pair(hidden.end.line, hidden.end.column);
    });
  };
  constexpr std::string_view kInstead = "***";
  std::string out;
  std::vector<std::uint32_t> moved;  // the new columns of the old ones
  bool hiding = false;
  std::size_t open = 0;  // bytes of a reference that are still to come
  std::uint32_t column = 1;
  for (std::size_t i = 0; i < text.size(); ++column) {
    const std::size_t bytes = std::min(code_point_length(text[i]), text.size() - i);
    if (open == 0 && (i == 0 || text[i - 1] != '$')) open = reference_length(text.substr(i));
    const bool quote = text[i] == '"' || text[i] == '\'';
    const bool outermost = !is_hidden(column - 1) || !is_hidden(column + 1);
    const bool hide_it = is_hidden(column) && open == 0 && !(quote && outermost);
    if (hide_it && !hiding) out += kInstead;
    moved.push_back(
        static_cast<std::uint32_t>(hide_it ? out.size() - kInstead.size() + 1 : out.size() + 1));
    if (!hide_it) out += text.substr(i, bytes);
    hiding = hide_it;
    open -= std::min(open, bytes);
    i += bytes;
  }
  moved.push_back(static_cast<std::uint32_t>(out.size() + 1));
  const auto new_column = [&](std::uint32_t old) {
    return old == 0 ? 0 : moved[std::min<std::size_t>(old, moved.size()) - 1];
  };
  const std::uint32_t begin = new_column(at.column);
  const std::uint32_t end = new_column(at.column + at.length);
  return {printable(out), begin, std::max(end, begin + 1) - begin};
}

std::string_view Report::line(Position at) const {
  if (at.line == 0 || at.source >= sources_.size()) return {};
  const Source& source = sources_[at.source];
  if (at.line > source.lines.size()) return {};
  std::string_view rest = std::string_view(source.text).substr(source.lines[at.line - 1]);
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
  std::size_t shown_entries = 0;
  for (const auto& [entry, kind] : ordered) {
    if (shown_entries++ == kMostShown) {
      out += fmt::format("... and {} more\n", ordered.size() - kMostShown);
      break;
    }
    const Position at = entry->at;
    out += fmt::format("{}: {}: {}\n", place(at), kind, printable(entry->message));
    // A line that no terminal can show is no help.
    constexpr std::size_t kLongestLine = 1000;
    if (line(at).size() > kLongestLine) {
      // The place and the message say all there is.
    } else if (const auto [source_line, column, length] = shown(at); !source_line.empty()) {
      out += fmt::format("{:5} | {}\n      | ", at.line, source_line);
      // Tabs are kept so that the caret stands below its column whatever their width is.
      for (std::uint32_t i = 0; i + 1 < column; ++i) {
        out += i < source_line.size() && source_line[i] == '\t' ? '\t' : ' ';
      }
      out += '^';
      const auto room = source_line.size() >= column ? source_line.size() - column : 0;
      out.append(std::min<std::size_t>(length > 0 ? length - 1 : 0, room), '~');
      out += '\n';
    }
    if (!entry->expected.empty()) out += fmt::format("      = expected {}\n", entry->expected);
    if (!entry->meant.empty()) out += fmt::format("      = did you mean '{}'?\n", entry->meant);
  }
  return out;
}

}  // namespace millrace::host
