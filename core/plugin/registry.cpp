#include "plugin/registry.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include <dlfcn.h>
#include <fmt/format.h>

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>

namespace millrace::host {

namespace {

constexpr std::string_view kSymbol = "millrace_plugin";

std::map<std::string, std::string> parts(std::string_view fingerprint) {
  std::map<std::string, std::string> out;
  std::stringstream stream{std::string(fingerprint)};
  for (std::string part; std::getline(stream, part, ';');) {
    const std::size_t equals = part.find('=');
    out[part.substr(0, equals)] = equals == std::string::npos ? "" : part.substr(equals + 1);
  }
  return out;
}

std::string fingerprint_problem(std::string_view theirs, std::string_view built_with) {
  if (theirs == MILLRACE_FINGERPRINT) return {};
  const auto host = parts(MILLRACE_FINGERPRINT);
  auto plugin = parts(theirs);
  std::string differences;
  for (const auto& [name, value] : host) {
    const std::string other = plugin.contains(name) ? plugin[name] : "nothing";
    if (other == value) continue;
    differences += fmt::format("{}{} is '{}' in the plugin and '{}' in this host",
                               differences.empty() ? "" : ", ", name, other, value);
  }
  if (differences.empty()) differences = fmt::format("it says '{}'", theirs);
  return fmt::format(
      "it was built in another way{}: {}; build the plugin again with this host's headers and "
      "compiler",
      built_with.empty() ? "" : fmt::format(", with Millrace {}", built_with), differences);
}

/// Bytes that a head of this minor number must have at least.
constexpr std::uint32_t needed_size(std::uint16_t minor) {
  return minor == 0 ? kFirstHeadSize : sizeof(PluginHead);
}

std::string built_with(const PluginHead& head) {
  return head.abi_minor == 0 ? "" : head.built_with;
}

/// dlopen's messages begin with the file's name, which ours names already.
std::string loader_message(const std::exception& error, const std::filesystem::path& file) {
  std::string text = error.what();
  // Boost puts its own words before the loader's, in the form "boost::dll...: loader's words: ...".
  if (const std::size_t own = text.find(file.string() + ": "); own != std::string::npos) {
    text = text.substr(own + file.string().size() + 2);
  }
  return text;
}

}  // namespace

const StageDescriptor* Plugin::stage(std::string_view stage_name) const {
  const auto found = std::ranges::find(body->stages, stage_name, &StageDescriptor::name);
  return found == body->stages.end() ? nullptr : &*found;
}

std::string head_problem(const PluginHead& head) {
  constexpr char kMagic[] = MILLRACE_PLUGIN_MAGIC;
  if (std::memcmp(head.magic, kMagic, sizeof head.magic) != 0) {
    return fmt::format("its symbol '{}' is not the head of a Millrace plugin", kSymbol);
  }
  const auto abi_problem = [&head](const std::string& why, std::string_view what_to_do) {
    return fmt::format("it has plugin ABI {}.{} (head of {} bytes) and this host has {}.{}{}; {}",
                       head.abi_major, head.abi_minor, head.size, kAbiMajor, kAbiMinor, why,
                       what_to_do);
  };
  if (head.abi_major != kAbiMajor || head.size < needed_size(head.abi_minor)) {
    return abi_problem(fmt::format(" (head of {} bytes)", sizeof(PluginHead)),
                       "build the plugin again with this host's headers");
  }
  if (head.abi_minor > kAbiMinor) {
    return abi_problem(fmt::format(": it was built with Millrace {}, this is {}", head.built_with,
                                   MILLRACE_VERSION),
                       "use a newer Millrace, or build the plugin again with this host's headers");
  }
  return fingerprint_problem(head.fingerprint, built_with(head));
}

Plugin load_plugin(const std::filesystem::path& file) {
  const auto fail = [&](const std::string& why) -> PluginError {
    return PluginError(fmt::format("cannot load the plugin '{}': {}", file.string(), why));
  };
  try {
    const boost::dll::shared_library library(
        file, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    if (!library.has(kSymbol.data())) {
      throw fail(
          fmt::format("it has no symbol '{}'; a plugin has one MILLRACE_PLUGIN(...)", kSymbol));
    }
    const auto& head = library.get<const PluginHead>(kSymbol.data());
    if (const std::string problem = head_problem(head); !problem.empty()) throw fail(problem);
    // The code stays mapped when `library` goes: stages, exceptions and strings of the plugin live
    // in it.
    if (::dlopen(library.location().c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) == nullptr) {
      throw fail(::dlerror());
    }
    const PluginBody& body = head.body();
    if (body.stages.empty()) throw fail("it offers no stages");
    return {head.name, head.version, built_with(head), file, &body};
  } catch (const PluginError&) {
    throw;
  } catch (const std::exception& error) {
    throw fail(loader_message(error, file));
  }
}

Registry::Registry(std::vector<std::filesystem::path> folders) : folders_(std::move(folders)) {
  for (const auto& folder : folders_) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      if (entry.path().extension() == ".so") files_.emplace(entry.path().stem(), entry.path());
    }
  }
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> list;
  for (const auto& [name, file] : files_) list.push_back(name);
  return list;
}

void Registry::add(Plugin plugin) {
  std::string name = plugin.name;
  loaded_.insert_or_assign(std::move(name), std::move(plugin));
}

const Plugin& Registry::load(const std::string& name) {
  if (const auto found = loaded_.find(name); found != loaded_.end()) return found->second;
  const auto file = files_.find(name);
  if (file == files_.end()) {
    std::string searched;
    for (const auto& folder : folders_)
      searched += (searched.empty() ? "" : ", ") + folder.string();
    throw PluginError(fmt::format("there is no plugin '{}' in {}", name, searched));
  }
  Plugin plugin = load_plugin(file->second);
  if (plugin.name != name) {
    throw PluginError(
        fmt::format("the plugin '{}' calls itself '{}'; a plugin's file bears its name",
                    file->second.string(), plugin.name));
  }
  return loaded_.emplace(name, std::move(plugin)).first->second;
}

std::vector<std::filesystem::path> plugin_folders(const std::vector<std::string>& extra) {
  std::vector<std::filesystem::path> folders(extra.begin(), extra.end());
  if (const char* path = std::getenv("MILLRACE_PLUGIN_PATH")) {
    std::stringstream list{std::string(path)};
    for (std::string folder; std::getline(list, folder, ':');) {
      if (!folder.empty()) folders.emplace_back(folder);
    }
  }
  folders.push_back(boost::dll::program_location().parent_path().parent_path() / "lib" /
                    "millrace" / "plugins");
  return folders;
}

std::filesystem::path data_folder() {
  return boost::dll::program_location().parent_path().parent_path() / "share" / "millrace";
}

}  // namespace millrace::host
