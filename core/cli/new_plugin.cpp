#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include <fmt/format.h>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "plugin/registry.h"

namespace millrace::host {

namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kKinds = {"source", "transform", "sink", "queue"};

/// "split-redis" -> "SplitRedis"
std::string class_name(const std::string& name) {
  std::string text;
  bool begins = true;
  for (const char c : name) {
    if (c != '-') text += begins ? static_cast<char>(std::toupper(c)) : c;
    begins = c == '-';
  }
  return text;
}

void check_name(const std::string& name) {
  const auto known = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  const bool good = !name.empty() && std::ranges::all_of(name, known) && name.front() >= 'a' &&
                    name.back() != '-' && name.find("--") == std::string::npos;
  if (good) return;
  throw UsageError(
      fmt::format("new-plugin {}: expected a name of lower-case letters, digits and "
                  "single hyphens that begins with a letter, such as tag-cidr",
                  name));
}

std::string filled(const fs::path& pattern, const std::map<std::string, std::string>& values) {
  std::ifstream file(pattern);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) throw std::runtime_error(fmt::format("cannot read '{}'", pattern.string()));
  std::string out = text.str();
  for (const auto& [key, value] : values) {
    for (std::size_t at = 0; (at = out.find(key, at)) != std::string::npos; at += value.size()) {
      out.replace(at, key.size(), value);
    }
  }
  return out;
}

void write(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error(fmt::format("cannot write '{}'", path.string()));
}

}  // namespace

int new_plugin_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace new-plugin NAME --kind source|transform|sink|queue");
  options.add_options()("help,h", "show this")("kind", po::value<std::string>(),
                                               "source, transform, sink or queue")(
      "folder", po::value<std::string>(), "the folder to make; default: NAME");
  const po::variables_map map = parse(arguments, options, "name");
  if (map.count("help") != 0) {
    std::cout << options;
    return 0;
  }
  if (map.count("name") == 0 || map["name"].as<std::vector<std::string>>().size() != 1) {
    throw UsageError("millrace new-plugin takes one name");
  }
  const std::string name = map["name"].as<std::vector<std::string>>().front();
  check_name(name);
  const std::string kind = map.count("kind") != 0 ? map["kind"].as<std::string>() : "";
  if (std::ranges::find(kKinds, kind) == kKinds.end()) {
    throw UsageError(fmt::format("--kind {}: expected {}", kind, fmt::join(kKinds, ", ")));
  }
  const fs::path folder = map.count("folder") != 0 ? map["folder"].as<std::string>() : name;
  if (fs::exists(folder)) {
    throw UsageError(fmt::format("'{}' is there already; nothing was changed", folder.string()));
  }

  const fs::path prefix = data_folder().parent_path().parent_path();
  const fs::path templates = data_folder() / "templates";
  std::string file = name;
  std::ranges::replace(file, '-', '_');
  const std::map<std::string, std::string> values = {
      {"@NAME@", name},
      {"@CLASS@", class_name(name)},
      {"@FILE@", file},
      {"@PREFIX@", prefix.string()},
      {"@MILLRACE@", (prefix / "bin" / "millrace").string()}};
  // Everything is read before anything is written.
  const std::map<std::string, std::string> texts = {
      {"CMakeLists.txt", filled(templates / "CMakeLists.txt.in", values)},
      {"README.md", filled(templates / "README.md.in", values)},
      {file + ".h", filled(templates / (kind + ".h.in"), values)},
      {file + ".cpp", filled(templates / (kind + ".cpp.in"), values)},
      {file + "_test.cpp", filled(templates / (kind + "_test.cpp.in"), values)},
      {file + "_test.toml", filled(templates / (kind + "_test.toml.in"), values)}};
  fs::create_directories(folder);
  for (const auto& [path, text] : texts) write(folder / path, text);
  std::cout << fmt::format(
      "{0} has a {1}, its tests and a README. To build and test it:\n"
      "  cd {0}\n"
      "  cmake -B build -G Ninja -DCMAKE_PREFIX_PATH={2}\n"
      "  cmake --build build\n"
      "  ctest --test-dir build --output-on-failure\n",
      folder.string(), kind, prefix.string());
  return 0;
}

}  // namespace millrace::host
