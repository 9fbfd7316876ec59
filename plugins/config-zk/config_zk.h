#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "millrace/plugin.h"

#include "json_values.h"
#include "reminder.h"
#include "status_node.h"
#include "zk_client.h"

namespace millrace {

struct ConfigZkOptions {
  std::string server{};
  std::string node{};
  ValueFormat format = ValueFormat::toml;
  Duration session_timeout = std::chrono::seconds(10);
  std::string agent{};
  std::string status = "/millrace/status";
  Duration report = std::chrono::seconds(5);
  std::string auth{};
  bool readable = false;
};

/// Gives the values of a ZooKeeper node and tells in another how the pipeline is doing.
///
/// One thread does everything: that of `run`. The library's threads and `report` only hand over.
class ConfigZk final : public ConfigProvider {
 public:
  explicit ConfigZk(const ConfigZkOptions& options);

  static void check(const ConfigZkOptions& options, Findings& findings);
  void open(Context& context) override;
  void run(ConfigListener& listener, std::stop_token stop) override;
  void report(const ConfigStatus& status) override;
  void close() noexcept override;

 private:
  using Time = std::chrono::steady_clock::time_point;

  void begin_session();
  void say_no_connection();
  void connected(ConfigListener& listener, const std::stop_token& stop);
  void read_node(ConfigListener& listener, const std::stop_token& stop);
  void tell(ConfigListener& listener, const ZkReply& node);
  void say_absent();
  [[nodiscard]] std::string goes_on() const;
  [[nodiscard]] std::optional<Time> next_due() const;

  ConfigZkOptions options_;
  Context* context_ = nullptr;
  std::optional<ZkClient> client_;
  std::optional<StatusNode> status_;

  std::uint64_t generation_ = 0;  ///< told last
  std::uint64_t connection_ = 0;  ///< of which everything was read
  std::optional<Time> read_at_;   ///< the node is due to be read
  Time unconnected_since_{};
  Reminder connection_said_;
  Reminder node_said_;
};

}  // namespace millrace
