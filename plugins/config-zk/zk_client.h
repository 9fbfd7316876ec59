#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "millrace/time.h"

#include "zk_names.h"

struct _zhandle;  // NOLINT: the name that zookeeper.h gave it

namespace millrace {

/// What both stages of the plugin need to speak to ZooKeeper.
struct ZkOptions {
  ZkServers servers;
  Duration session_timeout{};
  std::string auth;       ///< "user:password", or empty
  bool readable = false;  ///< with `auth`: others may read the nodes that are made here
};

enum class ZkCode : std::uint8_t {
  ok,
  no_node,
  node_exists,
  not_empty,
  bad_version,
  not_allowed,  ///< by the node's access control list
  lost,         ///< no connection, or it broke: the call may have had its effect or not
  stopped,      ///< whoever called was asked to stop meanwhile; the session is closed
  other,
};

/// What a call came to. Of the node: as it is after the call.
struct ZkReply {
  ZkCode code = ZkCode::lost;
  std::string error;  ///< ZooKeeper's text for a code that is not `ok`
  std::string data;
  std::vector<std::string> children;
  std::uint64_t mzxid = 0;  ///< the transaction that wrote its data last
  std::int32_t version = -1;
  std::int64_t owner = 0;  ///< the session of an ephemeral node
};

enum class ZkState : std::uint8_t { closed, connecting, connected, expired, auth_failed };

/// One session of an ensemble at a time. The library's threads only hand over what they have got;
/// everything else happens in the thread that calls.
///
/// Threads: one at a time, but `wake` from any. Calls wait for their answer; a call that is given
/// up closes the session, so that nothing of it is left.
class ZkClient {
 public:
  static constexpr std::int32_t kAnyVersion = -1;

  explicit ZkClient(ZkOptions options) : options_(std::move(options)) {}
  ZkClient(const ZkClient&) = delete;
  ZkClient& operator=(const ZkClient&) = delete;
  ~ZkClient() { close(); }

  /// Begins a new session and returns at once. Throws std::runtime_error if the library cannot (a
  /// host name that is not known, say).
  void open();
  /// Ends the session, with its ephemeral nodes.
  void close() noexcept;

  [[nodiscard]] ZkState state() const;
  /// Counts the times that a connection was made; what was read before may have changed.
  [[nodiscard]] std::uint64_t connections() const;
  [[nodiscard]] std::int64_t session() const;
  [[nodiscard]] const ZkOptions& options() const noexcept { return options_; }

  using Time = std::chrono::steady_clock::time_point;
  /// Until the state changes, a watched node does, or somebody calls `wake`.
  void wait(std::optional<Time> until, const std::stop_token& stop);
  void wake();
  /// The watched nodes that have changed since the last call of it.
  [[nodiscard]] std::vector<std::string> take_changes();

  // The calls. `watch`: the next change of the node is told by `take_changes`, once. Paths are
  // below the folder of `servers`.
  ZkReply get(const std::string& path, bool watch, const std::stop_token& stop);
  ZkReply exists(const std::string& path, bool watch, const std::stop_token& stop);
  ZkReply children(const std::string& path, const std::stop_token& stop);
  ZkReply set(const std::string& path, const std::string& data, std::int32_t version,
              const std::stop_token& stop);
  /// Makes folders that are missing too.
  ZkReply create(const std::string& path, const std::string& data, bool ephemeral,
                 const std::stop_token& stop);
  ZkReply remove(const std::string& path, std::int32_t version, const std::stop_token& stop);
  /// What is read after it is no older than now, whatever server answers.
  ZkReply sync(const std::string& path, const std::stop_token& stop);

 private:
  struct Callbacks;
  using Start = std::function<int(_zhandle*, const void* self)>;

  [[nodiscard]] std::string full(const std::string& path) const {
    return options_.servers.folder + path;
  }
  ZkReply create_one(const std::string& path, const std::string& data, bool ephemeral,
                     const std::stop_token& stop);
  ZkReply call(const Start& start, const std::stop_token& stop);

  struct Close {
    void operator()(_zhandle* handle) const noexcept;
  };

  const ZkOptions options_;
  std::unique_ptr<_zhandle, Close> handle_;

  // What the library's threads hand over.
  mutable std::mutex mutex_;
  std::condition_variable_any news_;
  bool woken_ = false;
  ZkState state_ = ZkState::closed;
  std::uint64_t connections_ = 0;
  std::vector<std::string> changes_;
  std::optional<ZkReply> reply_;
};

}  // namespace millrace
