#include "capture_files.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string_view>

#include <fmt/format.h>

#include "millrace/error.h"
#include "millrace/option.h"

#include "capture_reader.h"

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

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

/// All files in the folder and below it, in the order of their names.
std::vector<CaptureFile> files_below(const fs::path& folder) {
  std::vector<CaptureFile> found;
  try {
    // A link that leads back up ends in the system's error for too many links.
    using Walk = fs::recursive_directory_iterator;
    const Walk begin(folder, fs::directory_options::follow_directory_symlink);
    for (Walk entry = begin; entry != Walk(); ++entry) {
      if (is_hidden(entry->path())) {
        entry.disable_recursion_pending();
      } else if (entry->is_regular_file()) {
        found.push_back({entry->path(), folder});
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw ConfigError("file", fmt::format("cannot read the folder '{}': {}", folder.string(),
                                          error.code().message()));
  }
  if (found.empty()) {
    throw ConfigError("file", fmt::format("the folder '{}' holds no files", folder.string()));
  }
  std::ranges::sort(found, {}, &CaptureFile::path);
  return found;
}

/// Where the file is below the folder that stands for it.
fs::path below(const CaptureFile& file) { return file.path.lexically_relative(file.folder); }

bool lies_deeper(const CaptureFile& file) {
  return !file.folder.empty() && below(file).has_parent_path();
}

}  // namespace

std::vector<CaptureFile> list_captures(const std::vector<std::string>& names,
                                       const std::function<fs::path(const fs::path&)>& find) {
  std::vector<CaptureFile> files;
  for (const std::string& name : names) {
    const fs::path path = name == "-" ? fs::path(name) : find(name);
    std::error_code error;
    if (name != "-" && fs::is_directory(path, error)) {
      std::ranges::move(files_below(path), std::back_inserter(files));
    } else if (name == "-" || fs::exists(path, error)) {
      files.push_back({path, {}});
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

std::vector<CaptureFile> take_out_others(std::vector<CaptureFile>& files) {
  std::vector<CaptureFile> others;
  const auto is_other = [&](const CaptureFile& file) {
    std::error_code error;
    // Standard input and pipes can be read only once.
    if (file.path == "-" || !fs::is_regular_file(file.path, error)) return false;
    std::string problem;
    try {
      problem = no_capture(file.path);
    } catch (const std::system_error& failure) {
      throw ConfigError("file", fmt::format("cannot open '{}': {}", file.path.string(),
                                            failure.code().message()));
    } catch (const std::runtime_error& failure) {
      if (!file.folder.empty()) return false;
      problem = failure.what();
    }
    if (problem.empty()) return false;
    if (file.folder.empty()) throw ConfigError("file", problem);
    others.push_back(file);
    return true;
  };
  std::erase_if(files, is_other);
  if (files.empty()) {
    throw ConfigError(
        "file",
        fmt::format("the folder '{}' holds no captures; {} other files are in it, "
                    "the first is '{}'",
                    others.front().folder.string(), others.size(), others.front().path.string()));
  }
  return others;
}

std::uint64_t total_size(const std::vector<CaptureFile>& files) {
  std::uint64_t sum = 0;
  for (const CaptureFile& file : files) {
    std::error_code error;
    if (!fs::is_regular_file(file.path, error)) return 0;
    sum += fs::file_size(file.path, error);
  }
  return sum;
}

std::string folder_name(const CaptureFile& file) {
  if (lies_deeper(file)) return below(file).begin()->string();
  return fs::absolute(file.path).lexically_normal().parent_path().filename().string();
}

std::string file_name(const CaptureFile& file) {
  fs::path name = file.path.filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  for (const std::string_view ending : {".pcap", ".pcapng", ".cap"}) {
    if (name.extension() == ending) return name.stem().string();
  }
  return name.string();
}

void check_folder_names(const std::vector<CaptureFile>& files) {
  std::map<fs::path, const CaptureFile*> strays;
  for (const CaptureFile& file : files) {
    if (!file.folder.empty() && !lies_deeper(file)) strays.emplace(file.folder, &file);
  }
  for (const CaptureFile& file : files) {
    const auto stray = strays.find(file.folder);
    if (stray == strays.end() || !lies_deeper(file)) continue;
    throw ConfigError(
        "agent_from",
        fmt::format("the folder '{}' holds the file '{}' beside the folder '{}'; expected only "
                    "folders in it, whose names the agents get, or only files",
                    file.folder.string(), stray->second->path.filename().string(),
                    folder_name(file)));
  }
}

}  // namespace millrace
