#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
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

  /// The values that `${config.KEY}` stands for. Without them such references are left open in a
  /// file that names a config provider, and errors in one that does not.
  void set_config(std::map<std::string, std::string> values) { config_ = std::move(values); }
  /// The file names a config provider.
  void expect_config() { config_expected_ = true; }
  /// Reports every --var that no text names which was substituted so far, by this or by a copy: a
  /// name that is mistyped would leave a default in its place without a word. `file` is where it
  /// was looked for.
  void report_unnamed(const std::string& file, Report& report) const;
  /// For the [config] section itself, which is read before there are values.
  [[nodiscard]] Variables without_config() const;

  struct Result {
    std::string text;
    bool substituted = false;  ///< the whole text was one reference
    bool unresolved = false;
  };

  /// `${NAME}`, `${config.KEY}`, each also with `:-default` or `:?message`, `${file:PATH}`; `$${`
  /// is a plain `${`. A default may hold references, which count only where it is taken. A
  /// reference that cannot be resolved is reported at its place; `at` is where `text` stands in the
  /// file.
  [[nodiscard]] Result substitute(std::string_view text, Position at, Report& report) const;

 private:
  struct Lookup {
    std::optional<std::string> value;
    std::string problem;
    std::string meant;
    bool later = false;       ///< not known yet, and no error
    bool is_default = false;  ///< `value` may hold references
  };
  /// What may stand in front of `:-default` and `:?message`.
  struct Known {
    std::string name;
    std::optional<std::string> value;
    std::string not_there;
    std::string meant;
  };
  [[nodiscard]] Lookup look_up(std::string_view reference) const;
  [[nodiscard]] Lookup look_up_config(std::string_view reference) const;
  void note_names(std::string_view text) const;
  [[nodiscard]] Known variable(const std::string& name) const;
  [[nodiscard]] Known config_value(const std::string& key) const;
  [[nodiscard]] static Lookup choose(Known known, std::string_view rest,
                                     std::string_view reference);
  [[nodiscard]] Result substitute(std::string_view text, Position at, Report& report,
                                  std::size_t depth) const;

  std::map<std::string, std::string> given_;
  /// The names in every text so far; copies of this share it.
  std::shared_ptr<std::set<std::string, std::less<>>> named_ =
      std::make_shared<std::set<std::string, std::less<>>>();
  std::optional<std::map<std::string, std::string>> config_;
  bool leave_open_ = false;
  bool config_expected_ = false;
  bool inside_config_ = false;
};

}  // namespace millrace::host
