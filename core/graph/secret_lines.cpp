#include "graph/secret_lines.h"

#include <algorithm>
#include <string_view>

namespace millrace::host {

namespace {

/// The stage in whose section the line stands, or null.
const Plan::Stage* stage_of(Position line, std::span<const Plan::Stage> stages) {
  const Plan::Stage* last = nullptr;
  for (const Plan::Stage& stage : stages) {
    const bool before = stage.at.source == line.source && stage.at < line;
    if (before && (last == nullptr || last->at < stage.at)) last = &stage;
  }
  return last;
}

bool may_be_secret(const Plan::Stage& stage, std::string_view line) {
  if (stage.descriptor == nullptr) return true;
  const auto& options = stage.descriptor->options;
  const std::size_t begin = std::min(line.find_first_not_of(" \t"), line.size());
  const std::string_view key = line.substr(begin, line.find_first_of(" \t=.", begin) - begin);
  const auto known = std::ranges::find(options, key, &OptionSpec::name);
  if (known != options.end()) return known->secret;
  return std::ranges::find(host_key_names(), key) == host_key_names().end() &&
         std::ranges::any_of(options, &OptionSpec::secret);
}

}  // namespace

void hide_lines_left_out(const PipelineSpec& spec, std::span<const Plan::Stage> stages,
                         const std::optional<Plan::Stage>& provider, Report& report) {
  std::vector<Plan::Stage> all(stages.begin(), stages.end());
  if (spec.config) {
    Plan::Stage& config = all.emplace_back();
    config.at = spec.config->at;
    if (provider) config.descriptor = provider->descriptor;
  }
  for (Position at : spec.left_out) {
    const std::string_view line = report.line(at);
    const std::size_t first = line.find_first_not_of(" \t");
    if (first != std::string_view::npos && line[first] == '[') continue;  // a section's header
    const Plan::Stage* stage = stage_of(at, all);
    if (stage != nullptr && !may_be_secret(*stage, line)) continue;
    const std::size_t equals = line.find('=');
    at.column = equals == std::string_view::npos ? 1 : static_cast<std::uint32_t>(equals + 2);
    report.hide_rest_of_line(at);
  }
}

}  // namespace millrace::host
