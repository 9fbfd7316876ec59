#include "capture_files.h"

#include <algorithm>

#include <fmt/format.h>

#include "millrace/error.h"
#include "millrace/option.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

std::string similar(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    names.push_back(entry.path().filename().string());
  }
  return nearest(path.filename().string(), names);
}

}  // namespace

std::vector<fs::path> list_captures(const std::vector<std::string>& names) {
  std::vector<fs::path> files;
  for (const std::string& name : names) {
    const fs::path path(name);
    std::error_code error;
    if (name == "-") {
      files.push_back(path);
    } else if (fs::is_directory(path, error)) {
      std::vector<fs::path> inside;
      for (const auto& entry : fs::directory_iterator(path, error)) {
        if (entry.is_regular_file() && !entry.path().filename().string().starts_with('.')) {
          inside.push_back(entry.path());
        }
      }
      if (error)
        throw ConfigError("file",
                          fmt::format("cannot read the folder '{}': {}", name, error.message()));
      if (inside.empty())
        throw ConfigError("file", fmt::format("the folder '{}' holds no files", name));
      std::ranges::sort(inside);
      files.insert(files.end(), inside.begin(), inside.end());
    } else if (fs::exists(path, error)) {
      files.push_back(path);
    } else {
      const std::string meant = similar(path);
      throw ConfigError(
          "file", fmt::format("there is no file '{}'{}", name,
                              meant.empty() ? ""
                                            : fmt::format("; did you mean '{}'?",
                                                          (path.parent_path() / meant).string())));
    }
  }
  return files;
}

std::uint64_t total_size(const std::vector<fs::path>& files) {
  std::uint64_t sum = 0;
  for (const fs::path& file : files) {
    std::error_code error;
    if (!fs::is_regular_file(file, error)) return 0;
    sum += fs::file_size(file, error);
  }
  return sum;
}

}  // namespace millrace
