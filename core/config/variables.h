#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "config/report.h"

namespace millrace::host {

/// Where `${...}` in a pipeline file finds its values.
class Variables {
 public:
  /// `given` are the `--var`s; they come before the environment.
  explicit Variables(std::map<std::string, std::string> given = {}) : given_(std::move(given)) {}

  /// `check --no-env`: references that cannot be resolved are left open, not errors.
  void leave_open() { leave_open_ = true; }

  struct Result {
    std::string text;
    bool substituted = false;  ///< the whole text was one reference
    bool unresolved = false;
  };

  /// `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${file:PATH}`, `${config.KEY}`; `$${` is a
  /// plain `${`. A reference that cannot be resolved is reported at its place; `at` is where `text`
  /// stands in the file.
  [[nodiscard]] Result substitute(std::string_view text, Position at, Report& report) const;

 private:
  struct Lookup {
    std::optional<std::string> value;
    std::string problem;
    std::string meant;
  };
  [[nodiscard]] Lookup look_up(std::string_view reference) const;

  std::map<std::string, std::string> given_;
  bool leave_open_ = false;
};

}  // namespace millrace::host
