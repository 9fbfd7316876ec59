#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "millrace/abi.h"
#include "millrace/option.h"

#include "cli/commands.h"
#include "run/pipeline.h"

namespace {

constexpr std::string_view kUsage = R"(millrace: runs pipelines of plugins

  millrace run FILE        run a pipeline file
  millrace check FILE...   find everything that is wrong with pipeline files
  millrace test FILE...    run the tests of test files (docs/testing.md)
  millrace graph FILE      draw a pipeline (--format text|dot|mermaid)
  millrace plugins [NAME]  list the plugins, or all there is to know of one
  millrace new-plugin NAME --kind source|transform|sink|queue
                           begin a plugin in a folder of its own
  millrace version         print version and build

'millrace COMMAND --help' tells a command's options.
)";

int version_command(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    throw millrace::host::UsageError(
        fmt::format("millrace version takes no arguments, but got '{}'", arguments.front()));
  }
  std::cout << fmt::format("millrace {}\nplugin ABI {}.{}\n{}\n", MILLRACE_VERSION,
                           millrace::kAbiMajor, millrace::kAbiMinor, MILLRACE_FINGERPRINT);
  return 0;
}

int main_command(const std::vector<std::string>& arguments) {
  using namespace millrace::host;
  static const std::map<std::string, std::function<int(const std::vector<std::string>&)>> kCommands{
      {"run", run_command},        {"check", check_command}, {"plugins", plugins_command},
      {"graph", graph_command},    {"test", test_command},   {"new-plugin", new_plugin_command},
      {"version", version_command}};
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
      arguments[0] == "help") {
    (arguments.empty() ? std::cerr : std::cout) << kUsage;
    return arguments.empty() ? static_cast<int>(Exit::usage) : 0;
  }
  if (arguments[0] == "--version") {
    return version_command({arguments.begin() + 1, arguments.end()});
  }
  const auto command = kCommands.find(arguments[0]);
  if (command == kCommands.end()) {
    std::vector<std::string> names;
    names.reserve(kCommands.size());
    for (const auto& [name, function] : kCommands) names.push_back(name);
    const std::string meant = millrace::nearest(arguments[0], names);
    throw UsageError(fmt::format("there is no command '{}'{}", arguments[0],
                                 meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant)));
  }
  return command->second({arguments.begin() + 1, arguments.end()});
}

}  // namespace

int main(int count, char** values) {
  try {
    return main_command({values + 1, values + count});
  } catch (const millrace::host::UsageError& error) {
    std::cerr << "millrace: " << error.what() << "\n('millrace --help' shows what there is)\n";
    return static_cast<int>(millrace::host::Exit::usage);
  } catch (const std::exception& error) {
    std::cerr << "millrace: " << error.what() << '\n';
    return static_cast<int>(millrace::host::Exit::failed);
  } catch (...) {
    std::cerr << "millrace: a plugin threw something that is no std::exception\n";
    return static_cast<int>(millrace::host::Exit::failed);
  }
}
