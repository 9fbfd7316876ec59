#pragma once

#include <string>
#include <vector>

namespace millrace::host {

/// Each command gets what stands behind its name and returns the exit code (run/pipeline.h). Output
/// that was asked for goes to standard output, everything else to standard error.
int run_command(const std::vector<std::string>& arguments);
int check_command(const std::vector<std::string>& arguments);
int plugins_command(const std::vector<std::string>& arguments);
int new_plugin_command(const std::vector<std::string>& arguments);
int test_command(const std::vector<std::string>& arguments);
int graph_command(const std::vector<std::string>& arguments);

/// Command lines that make no sense; ends in Exit::usage.
class UsageError : public std::exception {
 public:
  explicit UsageError(std::string message) : message_(std::move(message)) {}
  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

}  // namespace millrace::host
