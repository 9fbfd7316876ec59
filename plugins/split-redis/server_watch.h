#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "millrace/context.h"

#include "connection.h"
#include "layout.h"

namespace millrace {

/// A setting on which the processes that share sessions have to agree, as the record in Redis has
/// it.
struct SharedSetting {
  std::string name;
  std::string value;
  bool must_agree = false;  ///< where values differ sessions are lost or mixed up
};

[[nodiscard]] inline SharedSetting layout_setting() {
  return {"layout", std::to_string(kStateVersion), true};
}
[[nodiscard]] inline SharedSetting buckets_setting(std::uint32_t buckets) {
  return {"buckets", std::to_string(buckets), true};
}

/// Watches the server that a stage works with, on a thread and a connection of its own: whether it
/// can be reached and takes writes, whether its settings lose what it holds, how full it is,
/// whether its clock agrees with this machine's, and whether the other processes have the same
/// settings. Those are in a record, the hash PREFIX:meta, that the first receiver writes and
/// everybody compares.
class ServerWatch {
 public:
  enum class Role : std::uint8_t { receiver, analyser };
  struct Settings {
    RedisAddress address;
    RedisTimeouts timeouts;
    std::string prefix;
    std::vector<KeyNames> names;
    std::vector<SharedSetting> shared;
    Role role = Role::receiver;
    std::uint64_t max_memory = 0;  ///< bytes; 0: a share of what the server has
  };

  ServerWatch(Settings settings, Context& context);
  ServerWatch(const ServerWatch&) = delete;
  ServerWatch& operator=(const ServerWatch&) = delete;
  ~ServerWatch() { stop(); }

  /// Looks at the server, and goes on doing so. Throws ConfigError for settings with which sessions
  /// would be lost; warns of a server that is out of reach.
  void start();
  void stop() noexcept;

  /// Throws ConfigError for a setting with which sessions are lost.
  void require_settings();
  /// And Transient where the server is out of reach or a replica.
  void require_server();
  /// Likewise where no receiver has written a record: no ticket can be of this prefix.
  void require_record();
  /// Whether neither throws.
  [[nodiscard]] bool works();
  /// Throws Transient while Redis holds more than it may.
  void require_room();
  /// Grows when Redis has lost what it held.
  [[nodiscard]] std::uint64_t times_emptied() const noexcept { return emptied_; }
  /// No session that was done since the record was written is forgotten yet.
  [[nodiscard]] bool remembers_all() const noexcept { return remembers_all_; }
  /// Keys of a wrong type, which are somebody else's, were renamed.
  void report_set_aside(std::uint64_t keys) noexcept;
  /// Sessions are lost: the condition "lost" fails for some minutes from now on.
  void report_lost(std::string_view why) noexcept;

 private:
  using Record = std::map<std::string, std::string, std::less<>>;
  using SteadyClock = std::chrono::steady_clock;

  void run() noexcept;
  void look_again() noexcept;
  void look();
  [[nodiscard]] std::vector<RedisReply> ask(const RedisCommand& command);
  void judge_server(std::string_view info);
  void judge_memory(std::string_view info);
  void judge_clock(Timestamp before, Timestamp redis, Timestamp after);
  void judge_record(const redisReply& reply, std::int64_t now);
  void write_record(Record& record, std::int64_t now);
  void compare(const Record& record);
  void miss_record();

  const Settings settings_;
  const std::string record_key_;
  Context& context_;
  Condition& redis_;
  Condition& policy_;
  Condition& lost_;
  Counter& set_aside_;
  RedisConnection connection_;

  // Of the thread, or of `start` before there is one.
  bool seen_ = false;
  bool unchecked_ = false;  ///< INFO is refused
  std::optional<bool> append_only_;
  bool clock_differs_ = false;
  std::string id_;                             ///< of the record
  std::map<std::string, std::string> warned_;  ///< values of others that were warned of

  std::atomic<std::uint64_t> emptied_{0};
  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> limit_{0};
  std::atomic<bool> remembers_all_{false};

  std::mutex mutex_;  ///< of all below
  std::condition_variable changed_;
  bool stopping_ = false;
  std::string trouble_;  ///< why the server cannot be worked with
  std::string refusal_;  ///< a wrong setting
  std::string refused_option_;
  std::string no_record_;
  std::optional<SteadyClock::time_point> lost_until_;
  std::optional<SteadyClock::time_point> quiet_until_;  ///< about keys that were set aside
  std::thread thread_;
};

/// Of what INFO answers; empty if it is not there.
[[nodiscard]] std::string_view info_field(std::string_view info, std::string_view name);

}  // namespace millrace
