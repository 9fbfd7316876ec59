#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "connection.h"
#include "gtid_position.h"
#include "mariadb_api.h"

namespace millrace {

/// The server does not have the transactions behind a position any more, or never had them.
class PositionLost : public ServerError {
 public:
  using ServerError::ServerError;
};

struct StreamOptions {
  ConnectionOptions server;
  std::uint32_t server_id = 0;
  /// How often the server says that it is there when nothing else comes; after three of these
  /// without a word it is given up.
  Duration heartbeat{};
};

/// Reads a server's binary log as a replica does. Threads: one at a time, but for `interrupt`.
/// Everything that speaks to the server throws ServerError, after which the stream is closed.
class BinlogStream {
 public:
  explicit BinlogStream(StreamOptions options);
  BinlogStream(const BinlogStream&) = delete;
  BinlogStream& operator=(const BinlogStream&) = delete;
  ~BinlogStream() { close(); }

  /// Behind `from`; without it the log is read from its oldest file on. Throws PositionLost if the
  /// server does not have what comes behind `from`.
  void open(const std::optional<GtidPosition>& from);
  [[nodiscard]] bool is_open() const noexcept { return mysql_ != nullptr; }
  void close() noexcept;

  /// The next event, which is valid until the next call. Null: one that the client library cannot
  /// read, and `problem` says why. Blocks until one comes; heartbeats are events.
  const MARIADB_RPL_EVENT* fetch();
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

  /// Lets a `fetch` that waits, and every later call, fail. Any thread.
  void interrupt() noexcept;

 private:
  struct Close {
    void operator()(MYSQL* mysql) const noexcept { ::mysql_close(mysql); }
    void operator()(MARIADB_RPL* rpl) const noexcept { ::mariadb_rpl_close(rpl); }
    void operator()(MARIADB_RPL_EVENT* event) const noexcept { ::mariadb_free_rpl_event(event); }
  };

  void connect();
  void run(const std::string& sql);
  [[noreturn]] void fail();
  [[noreturn]] void fail(const std::string& what, int code, bool passes);

  StreamOptions options_;
  std::string name_;
  std::unique_ptr<MYSQL, Close> mysql_;
  std::unique_ptr<MARIADB_RPL, Close> rpl_;
  std::unique_ptr<MARIADB_RPL_EVENT, Close> event_;
  std::string problem_;

  std::mutex mutex_;  ///< guards the next two: another thread shuts the socket down
  int socket_ = -1;
  bool interrupted_ = false;
};

}  // namespace millrace
