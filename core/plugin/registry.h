#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/plugin.h"

namespace millrace::host {

/// Why a shared object is not a plugin that this host can use. The message names the file, what
/// differs and what to do.
class PluginError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A loaded plugin. Its code stays in the process to the end, so pointers into it never dangle.
struct Plugin {
  std::string name;
  std::string version;
  std::string built_with;  ///< version of Millrace; empty: a plugin of ABI 1.0 does not say
  std::filesystem::path file;
  const PluginBody* body = nullptr;

  [[nodiscard]] const StageDescriptor* stage(std::string_view stage_name) const;
};

/// Finds plugins by name in folders and loads those that are asked for, each once.
class Registry {
 public:
  explicit Registry(std::vector<std::filesystem::path> folders);

  /// Names of the plugins that lie in the folders, sorted; nothing is opened for this.
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] bool has(const std::string& name) const {
    return files_.contains(name) || loaded_.contains(name);
  }
  [[nodiscard]] const std::vector<std::filesystem::path>& folders() const { return folders_; }

  /// A plugin that is part of this program; it takes the place of one of the same name. Its body
  /// must outlive what is made of it.
  void add(Plugin plugin);

  /// Throws PluginError.
  const Plugin& load(const std::string& name);

 private:
  std::vector<std::filesystem::path> folders_;
  std::map<std::string, std::filesystem::path> files_;
  std::map<std::string, Plugin> loaded_;
};

/// Opens the shared object and checks its head before any C++ of it is called. Throws PluginError.
[[nodiscard]] Plugin load_plugin(const std::filesystem::path& file);

/// Checks a head against this host; empty if it fits, else what differs.
[[nodiscard]] std::string head_problem(const PluginHead& head);

/// The folders of `millrace` in the order of search: `extra`, MILLRACE_PLUGIN_PATH (separated by
/// ':'), ../lib/millrace/plugins beside the program's own folder.
[[nodiscard]] std::vector<std::filesystem::path> plugin_folders(
    const std::vector<std::string>& extra);

/// ../share/millrace beside the program's own folder.
[[nodiscard]] std::filesystem::path data_folder();

}  // namespace millrace::host
