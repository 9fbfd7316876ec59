#include "output_folder.h"

#include <cerrno>
#include <filesystem>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

void open_output_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && ::access(path.c_str(), W_OK | X_OK) != 0) {
    error = std::error_code(errno, std::system_category());
  }
  if (error) {
    throw ConfigError(
        "path", fmt::format("cannot make files in the folder '{}': {}", path, error.message()));
  }
}

}  // namespace millrace
