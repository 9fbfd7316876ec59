#include <iostream>

#include <fmt/format.h>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "graph/plan.h"
#include "run/pipeline.h"

namespace millrace::host {

namespace {

std::vector<std::string> files_from(const po::variables_map& map, const std::string& command) {
  if (map.count("file") == 0) {
    throw UsageError(fmt::format("millrace {} takes a pipeline file", command));
  }
  return map["file"].as<std::vector<std::string>>();
}

}  // namespace

int check_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace check FILE...");
  options.add_options()("help,h", "show this")(
      "no-env", "do not complain of ${...} that cannot be resolved here (secrets, variables)");
  options.add_options()("probe",
                        "also look whether the options can work here and now: interfaces, filters");
  options.add(file_options());
  po::options_description hidden = supervised_option();
  hidden.add_options()("stages", po::value<std::string>());
  const po::variables_map map = parse(arguments, options, "file", hidden);
  if (map.count("help") != 0) {
    std::cout << options;
    return 0;
  }
  Variables variables = variables_from(map);
  if (map.count("no-env") != 0) variables.leave_open();
  Registry registry = registry_from(map);
  bool good = true;
  const std::vector<std::string> files = files_from(map, "check");
  bool whole = true;  // every file could be read, so every name in them is known
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string& file = files[i];
    Report report;
    const PipelineSpec spec = read_file_of(map, file, variables, report);
    whole = whole && !spec.syntax_errors && !spec.stages.empty();
    if (whole && i + 1 == files.size()) {
      variables.report_unnamed(files.size() == 1 ? file : "any of these files", report);
    }
    Plan plan = make_plan(spec, registry, report);
    if (report.empty() && map.count("stages") != 0) {
      const auto& part = map["stages"].as<std::string>();
      if (const auto wrong = cut(plan, part)) {
        report.add({}, fmt::format("--stages {}: {}", part, *wrong));
      }
    }
    if (report.empty() && map.count("probe") != 0) probe(plan, data_folder(), report);
    if (report.empty()) {
      std::cerr << report.text() << fmt::format("{}: ok, {} stages\n", file, plan.stages.size());
    } else {
      good = false;
      std::cerr << report.text() << count_errors(report.size(), file);
    }
  }
  return static_cast<int>(good ? Exit::done : Exit::usage);
}

int graph_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace graph FILE");
  options.add_options()("help,h", "show this")(
      "format", po::value<std::string>()->default_value("text"), "text, dot or mermaid");
  options.add(file_options());
  const po::variables_map map = parse(arguments, options, "file");
  if (map.count("help") != 0) {
    std::cout << options;
    return 0;
  }
  static const std::map<std::string, GraphFormat> kFormats = {
      {"text", GraphFormat::text}, {"dot", GraphFormat::dot}, {"mermaid", GraphFormat::mermaid}};
  const auto format = kFormats.find(map["format"].as<std::string>());
  if (format == kFormats.end()) throw UsageError("--format: expected text, dot or mermaid");
  const std::vector<std::string> files = files_from(map, "graph");
  if (files.size() != 1) throw UsageError("millrace graph takes one pipeline file");
  const std::string& file = files.front();

  // A picture needs no secrets.
  Variables variables = variables_from(map);
  variables.leave_open();
  Registry registry = registry_from(map);
  Report report;
  const PipelineSpec spec = read_pipeline(file, variables, settings_from(map), report);
  if (!spec.syntax_errors && !spec.stages.empty()) variables.report_unnamed(file, report);
  const Plan plan = make_plan(spec, registry, report);
  if (!report.empty()) {
    std::cerr << report.text() << count_errors(report.size(), file);
    return static_cast<int>(Exit::usage);
  }
  std::cout << draw(plan, format->second);
  return 0;
}

}  // namespace millrace::host
