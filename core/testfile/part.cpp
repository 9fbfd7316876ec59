#include "testfile/part.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace millrace::host {

namespace {

void mark_fed(const PipelineSpec& spec, const std::string& name, std::set<std::string>& marks) {
  if (!marks.insert(name).second) return;
  for (const StageSpec& reader : spec.stages) {
    if (reads(reader, name)) mark_fed(spec, reader.name, marks);
  }
}

void mark_feeding(const PipelineSpec& spec, const std::string& name, std::set<std::string>& marks) {
  if (!marks.insert(name).second) return;
  const auto one = std::ranges::find(spec.stages, name, &StageSpec::name);
  if (one == spec.stages.end()) return;
  for (const StageSpec::From& from : one->from) mark_feeding(spec, from.name, marks);
}

}  // namespace

bool reads(const StageSpec& reader, const std::string& name) {
  return std::ranges::find(reader.from, name, &StageSpec::From::name) != reader.from.end();
}

std::set<std::string> fed_by(const PipelineSpec& spec, const std::string& name) {
  std::set<std::string> marks;
  mark_fed(spec, name, marks);
  return marks;
}

std::set<std::string> stages_of_part(const PipelineSpec& spec, const std::string& part, Position at,
                                     Report& report) {
  const std::size_t dots = part.find("..");
  if (dots == std::string::npos) return {part};
  const std::string first = part.substr(0, dots);
  const std::string last = part.substr(dots + 2);
  std::set<std::string> fed;
  for (const StageSpec& stage : spec.stages) fed.insert(stage.name);
  std::set<std::string> feeding = fed;
  if (!first.empty()) fed = fed_by(spec, first);
  if (!last.empty()) mark_feeding(spec, last, feeding = {});
  std::set<std::string> between;
  std::ranges::set_intersection(fed, feeding, std::inserter(between, between.end()));
  if (between.empty()) {
    report.add(at, fmt::format("'{}' does not feed '{}'", first, last),
               "A..B with a way from A to B");
  }
  return between;
}

}  // namespace millrace::host
