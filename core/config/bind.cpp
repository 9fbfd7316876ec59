#include <algorithm>

#include <fmt/format.h>

#include "config/pipeline_file.h"

namespace millrace::host {

bool bind_options(const ConfigValue::Table& entries, const std::vector<OptionSpec>& specs,
                  void* options, const std::string& owner, Position owner_at,
                  const std::vector<std::string>& more_names, bool report_missing, Report& report) {
  bool good = true;
  std::vector<std::string> names = more_names;
  for (const OptionSpec& known : specs) names.push_back(known.name);
  const bool any_secret = std::ranges::any_of(specs, &OptionSpec::secret);
  for (const ConfigEntry& entry : entries) {
    const auto spec = std::ranges::find(specs, entry.key, &OptionSpec::name);
    if (spec == specs.end()) {
      report.add(entry.key_at, fmt::format("{} has no option '{}'", owner, entry.key), {},
                 nearest(entry.key, names));
      if (any_secret) hide(entry.value, report);  // it may be that one, mistyped
      good = false;
      continue;
    }
    if (spec->secret) hide(entry.value, report);
    if (any_unresolved(entry.value)) {
      good = false;
      continue;
    }
    if (auto error = spec->assign(options, to_option_value(entry.value, spec->type))) {
      const std::string found = spec->secret ? std::string("this value") : to_text(entry.value);
      report.add(entry.value.at, fmt::format("{} cannot be '{}'", found, entry.key),
                 std::move(error->expected),
                 spec->secret ? std::string() : std::move(error->meant));
      good = false;
    }
  }
  for (const OptionSpec& spec : specs) {
    if (!spec.required || find(entries, spec.name) != nullptr) continue;
    good = false;
    if (report_missing) {
      report.add(owner_at, fmt::format("{} needs the option '{}'", owner, spec.name),
                 fmt::format("{} = <{}>: {}", spec.name, spec.type, spec.help));
    }
  }
  return good;
}

}  // namespace millrace::host
