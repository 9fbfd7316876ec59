#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <boost/program_options.hpp>

#include "config/pipeline_file.h"
#include "config/variables.h"
#include "plugin/registry.h"
#include "run/logger.h"

namespace millrace::host {

namespace po = boost::program_options;

/// Options that run, check and graph share: --var, --set, --plugins.
[[nodiscard]] po::options_description file_options();

/// Parses; throws UsageError with a name that was probably meant. `positional` is the name of the
/// option that takes the arguments without a dash.
/// `hidden` are options that no help shows.
[[nodiscard]] po::variables_map parse(const std::vector<std::string>& arguments,
                                      const po::options_description& options,
                                      const std::string& positional,
                                      const po::options_description& hidden = {});

/// --supervised: a supervisor has handed the configuration over (supervise/worker.h).
[[nodiscard]] po::options_description supervised_option();

/// The pipeline file `file`, or with --supervised the one that was handed over; then its values are
/// known and it needs no provider any more.
[[nodiscard]] PipelineSpec read_file_of(const po::variables_map& map, const std::string& file,
                                        Variables variables, Report& report);

/// --var
[[nodiscard]] std::map<std::string, std::string> given_variables(const po::variables_map& map);
[[nodiscard]] Variables variables_from(const po::variables_map& map);
[[nodiscard]] std::vector<Setting> settings_from(const po::variables_map& map);
[[nodiscard]] Registry registry_from(const po::variables_map& map);
[[nodiscard]] std::chrono::milliseconds duration_from(const std::string& option,
                                                      const std::string& text);

/// "3 errors in pipelines/agent.toml"
[[nodiscard]] std::string count_errors(std::size_t errors, const std::string& file);

}  // namespace millrace::host
