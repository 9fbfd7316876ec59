#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>

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

/// A descriptor from 0 to 2 that is closed would be that of the next file opened, and the log would
/// go into somebody's data. What reads standard input or writes results to standard output that is
/// not there gets an error (EBADF), as these are opened the other way round; messages are lost.
void hold_standard_descriptors() {
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_RDWR};
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number: this one, as those below are open.
    if (::open("/dev/null", kModes[descriptor]) != descriptor) std::_Exit(1);
  }
}

void prepare_process() {
  hold_standard_descriptors();
  // A file that may not grow any more (RLIMIT_FSIZE) is an error of who writes it, EFBIG.
  std::signal(SIGXFSZ, SIG_IGN);
  // The supervisor starts this program as /proc/self/exe, and "exe" would be its name.
  ::prctl(PR_SET_NAME, "millrace");
}

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
  prepare_process();
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
