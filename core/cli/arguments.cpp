#include "cli/arguments.h"

#include <fmt/format.h>

#include "cli/commands.h"
#include "supervise/handover.h"
#include "supervise/worker.h"

namespace millrace::host {

po::options_description file_options() {
  po::options_description options("Pipeline file");
  options.add_options()                                                              //
      ("var", po::value<std::vector<std::string>>()->value_name("NAME=VALUE"),       //
       "value for ${NAME}; comes before the environment (repeatable)")               //
      ("set", po::value<std::vector<std::string>>()->value_name("STAGE.KEY=VALUE"),  //
       "replace or add an option of a stage (repeatable)")                           //
      ("plugins", po::value<std::vector<std::string>>()->value_name("FOLDER"),       //
       "look for plugins here first (repeatable)");
  return options;
}

po::variables_map parse(const std::vector<std::string>& arguments,
                        const po::options_description& options, const std::string& positional,
                        const po::options_description& hidden) {
  po::options_description all;
  all.add(options).add(hidden);
  all.add_options()(positional.c_str(), po::value<std::vector<std::string>>());
  po::positional_options_description places;
  places.add(positional.c_str(), -1);
  po::variables_map map;
  try {
    namespace style = po::command_line_style;
    po::store(po::command_line_parser(arguments)
                  .options(all)
                  .positional(places)
                  .style(style::unix_style & ~style::allow_guessing)
                  .run(),
              map);
    po::notify(map);
  } catch (const po::unknown_option& error) {
    std::vector<std::string> names;
    for (const auto& known : options.options()) names.push_back("--" + known->long_name());
    // Without what stands behind '=': it may be a secret.
    const std::string name = error.get_option_name();
    const std::string given = name.substr(0, name.find('='));
    const std::string meant = nearest(given, names);
    throw UsageError(fmt::format("there is no option {}{}", given,
                                 meant.empty() ? "" : fmt::format("; did you mean {}?", meant)));
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
  return map;
}

po::options_description supervised_option() {
  po::options_description options;
  options.add_options()("supervised", "");
  return options;
}

PipelineSpec read_file_of(const po::variables_map& map, const std::string& file,
                          Variables variables, Report& report) {
  if (map.count("supervised") == 0) {
    return read_pipeline(file, variables, settings_from(map), report);
  }
  Handover handover = read_handover(Worker::kHandover);
  variables.set_config(std::move(handover.config.values));
  PipelineSpec spec =
      read_pipeline_text(file, std::move(handover.pipeline), variables, settings_from(map), report);
  spec.config.reset();
  return spec;
}

std::map<std::string, std::string> given_variables(const po::variables_map& map) {
  std::map<std::string, std::string> given;
  std::size_t number = 1;
  if (map.count("var") != 0) {
    for (const auto& pair : map["var"].as<std::vector<std::string>>()) {
      const std::size_t equals = pair.find('=');
      if (equals == std::string::npos || equals == 0) {
        // Not the text itself: it may be a secret without its name.
        throw UsageError(fmt::format("--var number {}: expected NAME=VALUE", number));
      }
      ++number;
      given[pair.substr(0, equals)] = pair.substr(equals + 1);
    }
  }
  return given;
}

Variables variables_from(const po::variables_map& map) { return Variables(given_variables(map)); }

std::vector<Setting> settings_from(const po::variables_map& map) {
  std::vector<Setting> settings;
  if (map.count("set") != 0) {
    for (const auto& text : map["set"].as<std::vector<std::string>>()) settings.push_back({text});
  }
  return settings;
}

Registry registry_from(const po::variables_map& map) {
  std::vector<std::string> extra;
  if (map.count("plugins") != 0) extra = map["plugins"].as<std::vector<std::string>>();
  return Registry(plugin_folders(extra));
}

std::chrono::milliseconds duration_from(const std::string& option, const std::string& text) {
  Duration value{};
  if (auto error = detail::read(OptionValue{text}, value)) {
    throw UsageError(fmt::format("--{} {}: expected {}", option, text, error->expected));
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(value);
}

std::string count_errors(std::size_t errors, const std::string& file) {
  return fmt::format("{} error{} in {}\n", errors, errors == 1 ? "" : "s", file);
}

}  // namespace millrace::host
