#pragma once

#include <chrono>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "millrace/provider.h"

#include "reminder.h"
#include "zk_client.h"

namespace millrace {

/// The ephemeral node in which an agent says how it is. A node of that name that belongs to another
/// session is never written to or deleted: it is waited for until it goes.
///
/// Threads: `tell` from any, all else from the thread that has the client.
class StatusNode {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `path` empty: there is none. New counters alone are written every `report`.
  StatusNode(std::string path, std::string agent, Duration report);

  void open(Context& context);
  /// The newest status; returns whether `due` may have changed.
  bool tell(const ConfigStatus& status);
  /// Whether the node with the configuration is there. Without it the agent goes on with the last.
  enum class Source : std::uint8_t { absent, there, deleted };
  void tell_source(Source source);
  /// The generation that the pipeline runs with.
  [[nodiscard]] std::uint64_t applied() const;
  /// There is a new session or connection.
  void renew();
  /// The node of that name, if it was watched, has changed.
  void node_changed();
  /// When the next `write` is due; never, if nothing has to be written.
  [[nodiscard]] std::optional<Time> due() const;
  void write(ZkClient& client, const std::stop_token& stop);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  enum class Put : std::uint8_t { done, again, failed };

  [[nodiscard]] std::string text(const ConfigStatus& status, Source source) const;
  Put put(ZkClient& client, const std::string& text, const std::stop_token& stop);
  Put look_at_holder(ZkClient& client, const std::stop_token& stop);
  void say_held(const ZkClient& client, const ZkReply& holder, const std::stop_token& stop);
  Put failed(const ZkReply& reply);

  const std::string path_;
  const std::string agent_;
  const Duration report_;
  const std::string host_;
  Context* context_ = nullptr;
  std::string since_;

  std::int64_t session_ = 0;  ///< that the node was made in; 0: it is not ours
  std::int32_t version_ = 0;
  std::optional<Time> held_since_;
  Reminder reminder_;

  mutable std::mutex mutex_;
  ConfigStatus status_;
  Source source_ = Source::absent;
  bool urgent_ = true;
  bool fresh_ = false;
  Time written_at_{};
  Time not_before_{};
};

/// This machine's name.
[[nodiscard]] std::string host_name();

}  // namespace millrace
