#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "millrace/plugin.h"

namespace millrace {

struct ConfigFileOptions {
  std::string path = "/etc/millrace/agent-values.toml";
  Duration settle = std::chrono::milliseconds(20);
  // Of config-zk; without meaning here.
  std::string server{};
  std::string node{};
  std::string agent{};
};

/// Gives the values of a TOML file, and again whenever its content has changed. What is watched is
/// the file's folder: editors and Kubernetes put a new file in the old one's place.
class ConfigFile final : public ConfigProvider {
 public:
  explicit ConfigFile(const ConfigFileOptions& options) : options_(options) {}

  void open(Context& context) override;
  void run(ConfigListener& listener, std::stop_token stop) override;

 private:
  /// Reads the file and tells its values, if they are not those of the last time.
  void look(ConfigListener& listener);
  /// Says it at a change of it only.
  void say_missing(std::string why);

  ConfigFileOptions options_;
  Context* context_ = nullptr;
  std::uint64_t generation_ = 0;
  std::optional<std::string> content_;
  std::string missing_;  ///< why the file cannot be read; empty if it can
};

}  // namespace millrace
