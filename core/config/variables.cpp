#include "config/variables.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "millrace/option.h"

namespace millrace::host {

namespace {

bool is_name(std::string_view name) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; };
  return !name.empty() && std::ranges::all_of(name, plain) &&
         std::isdigit(static_cast<unsigned char>(name.front())) == 0;
}

std::string not_a_reference(std::string_view text) {
  return fmt::format(
      "'${{{}}}' is none of ${{NAME}}, ${{NAME:-default}}, ${{NAME:?message}}, ${{file:PATH}}, "
      "${{config.KEY}}",
      text);
}

/// A secret's file usually ends with a line end that is no part of the secret.
std::string without_line_end(std::string text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  return text;
}

/// Where the reference that `open` begins is closed; its default may hold others.
std::size_t closing_brace(std::string_view text, std::size_t open) {
  std::size_t depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    if (text.substr(i).starts_with("${")) {
      ++depth;
      ++i;
    } else if (text[i] == '}' && --depth == 0) {
      return i;
    }
  }
  // A "${" that is not meant as one, as in a message.
  return text.find('}', open);
}

}  // namespace

void Variables::report_unnamed(const std::string& file, Report& report) const {
  const std::vector<std::string> names(named_->begin(), named_->end());
  for (const auto& [name, ignored] : given_) {
    if (named_->contains(name)) continue;
    report.add({report.add_source("--var " + name, {}), 0, 0, 1},
               fmt::format("there is no ${{{}}} in {}", name, file),
               names.empty() ? std::string()
                             : fmt::format("one of its variables: {}", fmt::join(names, ", ")),
               nearest(name, names));
  }
}

/// Whether a reference is looked up or not: the default of one that is set is not.
void Variables::note_names(std::string_view text) const {
  for (std::size_t open = text.find("${"); open != std::string_view::npos;
       open = text.find("${", open + 2)) {
    if (open > 0 && text[open - 1] == '$') continue;
    const std::string_view rest = text.substr(open + 2);
    const std::string_view name = rest.substr(0, rest.find_first_of(":}"));
    if (is_name(name)) named_->emplace(name);
  }
}

Variables::Lookup Variables::look_up(std::string_view reference) const {
  if (reference.starts_with("file:")) {
    const std::string path(reference.substr(5));
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      return {{}, fmt::format("cannot read '{}': {}", path, std::strerror(errno)), {}};
    }
    std::stringstream content;
    content << file.rdbuf();
    return {without_line_end(content.str()), {}, {}};
  }
  if (reference.starts_with("config.")) return look_up_config(reference);
  const std::size_t colon = reference.find(':');
  const std::string name(reference.substr(0, colon));
  if (!is_name(name)) return {{}, not_a_reference(reference), {}};
  return choose(variable(name),
                colon == std::string_view::npos ? std::string_view() : reference.substr(colon),
                reference);
}

Variables::Lookup Variables::look_up_config(std::string_view reference) const {
  if (inside_config_) {
    return {{},
            fmt::format("'${{{}}}' is not known in [config], which says where to ask for it",
                        reference),
            {}};
  }
  if (!config_ && !config_expected_) {
    return {
        {},
        fmt::format("'${{{}}}' needs a [config] section that names a config provider", reference),
        {}};
  }
  const std::size_t colon = reference.find(':');
  const std::string key(reference.substr(0, colon).substr(std::string_view("config.").size()));
  if (key.empty()) return {{}, not_a_reference(reference), {}};
  if (!config_) return {{}, {}, {}, true};
  return choose(config_value(key),
                colon == std::string_view::npos ? std::string_view() : reference.substr(colon),
                reference);
}

Variables::Known Variables::variable(const std::string& name) const {
  Known known;
  known.name = fmt::format("variable '{}'", name);
  if (const auto found = given_.find(name); found != given_.end()) {
    known.value = found->second;
  } else if (const char* set = std::getenv(name.c_str())) {
    known.value = set;
  } else {
    known.not_there = fmt::format(
        "variable '{}' is not set; give --var {}=... or set it in the environment", name, name);
    std::vector<std::string> names;
    for (const auto& [other, ignored] : given_) names.push_back(other);
    known.meant = nearest(name, names);
  }
  return known;
}

Variables::Known Variables::config_value(const std::string& key) const {
  Known known;
  known.name = fmt::format("'config.{}'", key);
  if (const auto found = config_->find(key); found != config_->end()) {
    known.value = found->second;
    return known;
  }
  known.not_there = fmt::format("the config provider gives no value '{}'", key);
  std::vector<std::string> names;
  for (const auto& [other, ignored] : *config_) names.push_back(other);
  known.meant = nearest(key, names);
  return known;
}

Variables::Lookup Variables::choose(Known known, std::string_view rest,
                                    std::string_view reference) {
  if (rest.empty()) {
    if (known.value) return {std::move(known.value), {}, {}};
    return {{}, std::move(known.not_there), std::move(known.meant)};
  }
  const bool set = known.value && !known.value->empty();
  if (rest.starts_with(":-")) {
    if (set) return {std::move(known.value), {}, {}};
    return {std::string(rest.substr(2)), {}, {}, false, true};
  }
  if (rest.starts_with(":?")) {
    if (set) return {std::move(known.value), {}, {}};
    return {{}, fmt::format("{} is not set: {}", known.name, rest.substr(2)), {}};
  }
  return {{}, not_a_reference(reference), {}};
}

Variables Variables::without_config() const {
  Variables other = *this;
  other.inside_config_ = true;
  return other;
}

Variables::Result Variables::substitute(std::string_view text, Position at, Report& report) const {
  note_names(text);
  return substitute(text, at, report, 0);
}

Variables::Result Variables::substitute(std::string_view text, Position at, Report& report,
                                        std::size_t depth) const {
  constexpr std::size_t kDeepest = 8;
  Result result;
  std::size_t from = 0;
  while (true) {
    const std::size_t open = text.find("${", from);
    if (open == std::string_view::npos) break;
    if (open > 0 && text[open - 1] == '$') {
      result.text += text.substr(from, open - 1 - from);
      result.text += "${";
      from = open + 2;
      continue;
    }
    result.text += text.substr(from, open - from);

    // Where the reference stands in its line; an escape before it makes the column unsure, then the
    // value's own place must do.
    Position where = at;
    const std::size_t close = closing_brace(text, open);
    const std::string_view whole =
        text.substr(open, close == std::string_view::npos ? close : close + 1 - open);
    if (const std::size_t column = report.line(at).find(whole, at.column > 0 ? at.column - 1 : 0);
        column != std::string_view::npos) {
      where.column = static_cast<std::uint32_t>(column + 1);
      where.length = static_cast<std::uint32_t>(whole.size());
    }
    if (close == std::string_view::npos) {
      report.add(where, "'${' is not closed", "'}' after the reference");
      result.unresolved = true;
      return result;
    }
    Lookup found = look_up(text.substr(open + 2, close - open - 2));
    if (found.value && found.is_default && found.value->find("${") != std::string::npos) {
      if (depth == kDeepest) {
        report.add(where, fmt::format("defaults within defaults, more than {} deep", kDeepest));
        result.unresolved = true;
        return result;
      }
      const Result inner = substitute(*found.value, where, report, depth + 1);
      result.text += inner.text;
      result.unresolved = result.unresolved || inner.unresolved;
      result.substituted = open == 0 && close + 1 == text.size();
    } else if (found.value) {
      result.text += *found.value;
      result.substituted = open == 0 && close + 1 == text.size();
    } else {
      result.unresolved = true;
      if (!leave_open_ && !found.later) {
        report.add(where, std::move(found.problem), {}, std::move(found.meant));
      }
    }
    from = close + 1;
  }
  result.text += text.substr(std::min(from, text.size()));
  return result;
}

}  // namespace millrace::host
