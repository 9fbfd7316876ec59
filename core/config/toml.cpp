#include "config/toml.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "millrace/text_depth.h"

namespace millrace::host {

namespace {

Position position(std::uint32_t source, const toml::source_region& region) {
  std::uint32_t length = 1;
  if (region.end.line == region.begin.line && region.end.column > region.begin.column) {
    length = static_cast<std::uint32_t>(region.end.column - region.begin.column);
  }
  return {source, static_cast<std::uint32_t>(region.begin.line),
          static_cast<std::uint32_t>(region.begin.column), length};
}

Position behind(std::uint32_t source, const toml::source_region& region) {
  return {source, static_cast<std::uint32_t>(region.end.line),
          static_cast<std::uint32_t>(region.end.column), 1};
}

class Converter {
 public:
  /// Without `placed`, every value has the source as a whole for its place.
  Converter(std::uint32_t source, const Variables& variables, Report& report, bool placed = true)
      : source_(source), variables_(variables), report_(report), placed_(placed) {}

  /// [config] is read without the values that it leads to.
  ConfigValue::Table root(const toml::table& from) {
    const Variables plain = variables_.without_config();
    Converter config(source_, plain, report_);
    ConfigValue::Table entries;
    for (const auto& [key, node] : from) {
      if (key.str().starts_with(kBrokenHeader)) continue;
      entries.push_back({std::string(key.str()), place(key.source()),
                         key.str() == "config" ? config.value(node) : value(node)});
    }
    std::ranges::stable_sort(entries, {}, &ConfigEntry::key_at);
    return entries;
  }

  ConfigValue::Table table(const toml::table& from) {
    ConfigValue::Table entries;
    for (const auto& [key, node] : from) {
      if (key.str().starts_with(kBrokenHeader)) continue;
      entries.push_back({std::string(key.str()), place(key.source()), value(node)});
    }
    std::ranges::stable_sort(entries, {}, &ConfigEntry::key_at);
    return entries;
  }

  ConfigValue value(const toml::node& node) {
    ConfigValue out;
    out.at = place(node.source());
    out.end = placed_ ? behind(source_, node.source()) : out.at;
    if (const auto* text = node.as_string()) {
      Variables::Result result = variables_.substitute(text->get(), out.at, report_);
      out.value = std::move(result.text);
      out.substituted = result.substituted;
      out.unresolved = result.unresolved;
    } else if (const auto* whole = node.as_integer()) {
      out.value = whole->get();
    } else if (const auto* number = node.as_floating_point()) {
      out.value = number->get();
    } else if (const auto* truth = node.as_boolean()) {
      out.value = truth->get();
    } else if (const auto* array = node.as_array()) {
      ConfigValue::List list;
      for (const toml::node& element : *array) list.push_back(value(element));
      out.value = std::move(list);
    } else if (const auto* inner = node.as_table()) {
      out.value = table(*inner);
    } else {
      report_.add(out.at, "dates and times are not used in pipeline files", "a text in quotes");
      out.unresolved = true;
      out.value = std::string();
    }
    return out;
  }

  /// Stands for a header that could not be read, so that the keys below it do not fall into the
  /// table above.
  static constexpr std::string_view kBrokenHeader = "\x01line ";

 private:
  [[nodiscard]] Position place(const toml::source_region& region) const {
    return placed_ ? position(source_, region) : Position{source_, 0, 0, 1};
  }

  std::uint32_t source_;
  const Variables& variables_;
  Report& report_;
  bool placed_;
};

/// Takes line `number` out of `text`; false if there is nothing to take.
bool blank_line(std::string& text, std::uint32_t number) {
  std::size_t begin = 0;
  for (std::uint32_t line = 1; line < number; ++line) {
    begin = text.find('\n', begin);
    if (begin == std::string::npos) return false;
    ++begin;
  }
  const std::size_t end = std::min(text.find('\n', begin), text.size());
  const std::string_view line = std::string_view(text).substr(begin, end - begin);
  const std::size_t first = line.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return false;
  const bool header = line[first] == '[';
  const std::string instead = header ? fmt::format("[\"\\u0001line {}\"]", number) : std::string();
  if (header && line == instead) return false;
  text.replace(begin, end - begin, instead);
  return true;
}

}  // namespace

TomlDocument read_toml(const std::string& name, std::string text, const Variables& variables,
                       Report& report) {
  const std::uint32_t source = report.add_source(name, text);
  TomlDocument document;
  constexpr int kMostErrors = 50;
  for (int attempt = 0; attempt < kMostErrors; ++attempt) {
    if (auto fault = toml_fault(text)) {
      document.syntax_errors = true;
      const Position at{source, static_cast<std::uint32_t>(fault->line),
                        static_cast<std::uint32_t>(fault->column), 1};
      document.left_out.push_back(at);
      report.add(at, std::move(fault->message));
      return document;
    }
    try {
      const toml::table root = toml::parse(text, name);
      Variables known = variables;
      if (root.contains("config")) known.expect_config();
      document.root = Converter(source, known, report).root(root);
      return document;
    } catch (const toml::parse_error& error) {
      document.syntax_errors = true;
      Position at = position(source, error.source());
      std::string message(error.description());
      constexpr std::string_view kBegins = "Error while parsing ";
      if (message.starts_with(kBegins)) message.replace(0, kBegins.size(), "in this ");
      // An error that shows at the end of a line is found at the beginning of the next one.
      if (!blank_line(text, at.line)) {
        if (at.line < 2 || !blank_line(text, at.line - 1)) {
          document.left_out.push_back(at);
          report.add(at, std::move(message));
          return document;
        }
        --at.line;
        at.column = static_cast<std::uint32_t>(report.line(at).size() + 1);
      }
      document.left_out.push_back(at);
      report.add(at, std::move(message));
    }
  }
  return document;
}

ConfigValue read_toml_value(const std::string& name, const std::string& text,
                            const Variables& variables, Report& report) {
  // Of a command line nothing is shown but the name: the value may be a secret.
  const std::uint32_t source = report.add_source(name, {});
  ConfigValue out;
  const std::string line = "v = " + text;
  if (auto fault = toml_fault(line)) {
    out.at = {source, 0, 0, 1};
    out.value = std::string();
    out.unresolved = true;
    report.add(out.at, "the value is " + std::move(fault->message));
    return out;
  }
  try {
    const toml::table root = toml::parse(line, name);
    if (root.size() == 1) return Converter(source, variables, report, false).value(*root.get("v"));
  } catch (const toml::parse_error&) {
    // Not a TOML value: a plain text, as a shell user writes it.
  }
  Variables::Result result = variables.substitute(text, {source, 0, 0, 1}, report);
  out.at = {source, 0, 0, 1};
  out.value = std::move(result.text);
  out.substituted = true;
  out.unresolved = result.unresolved;
  return out;
}

}  // namespace millrace::host
