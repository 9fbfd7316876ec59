#include "capture_files.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "millrace/error.h"
#include "millrace/option.h"
#include "millrace/packet_clock.h"

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

/// Whether `a` comes before `b`, numbers in them compared as numbers.
bool comes_before(std::string_view a, std::string_view b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto number = [&](std::string_view& text) {
    std::size_t size = 0;
    while (size < text.size() && digit(text[size])) ++size;
    std::string_view found = text.substr(0, size);
    text.remove_prefix(size);
    while (found.size() > 1 && found.front() == '0') found.remove_prefix(1);
    return found;
  };
  const std::string_view whole_a = a;
  const std::string_view whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (digit(a.front()) && digit(b.front())) {
      const std::string_view x = number(a);
      const std::string_view y = number(b);
      if (x != y) return x.size() != y.size() ? x.size() < y.size() : x < y;
    } else if (a.front() != b.front()) {
      // A folder's files come before those of one whose name is longer.
      if (a.front() == '/' || b.front() == '/') return a.front() == '/';
      return static_cast<unsigned char>(a.front()) < static_cast<unsigned char>(b.front());
    } else {
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;
}

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
  std::ranges::sort(found, [](const CaptureFile& a, const CaptureFile& b) {
    return comes_before(a.path.native(), b.path.native());
  });
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

void sort_by_time(std::vector<CaptureFile>& files,
                  const std::function<std::string(const CaptureFile&)>& agent) {
  struct Agent {
    std::size_t place = 0;  ///< of its first file
    Timestamp last = kNoTime;
  };
  using Key = std::tuple<std::size_t, Timestamp, std::size_t>;  // agent, begin, place
  std::vector<std::pair<Key, CaptureFile>> keyed;
  std::map<std::string, Agent> agents;
  for (CaptureFile& file : files) {
    Agent& of = agents.try_emplace(agent(file), Agent{keyed.size()}).first->second;
    of.last = file.begins.value_or(of.last);
    keyed.emplace_back(Key{of.place, of.last, keyed.size()}, std::move(file));
  }
  std::ranges::sort(keyed, {}, [](const auto& one) -> const Key& { return one.first; });
  std::ranges::transform(keyed, files.begin(), [](auto& one) { return std::move(one.second); });
}

std::optional<Times> bulk_of(std::span<const Timestamp> times) {
  constexpr Duration kDay = std::chrono::hours(24);
  if (times.empty()) return std::nullopt;
  std::vector<Timestamp> sorted(times.begin(), times.end());
  std::ranges::sort(sorted);
  const Timestamp middle = sorted[(sorted.size() - 1) / 2];
  std::erase_if(sorted, [&](Timestamp time) {
    return between(time, middle) > kDay || between(middle, time) > kDay;
  });
  return Times{sorted.front(), sorted.back()};
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
