#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "millrace/context.h"
#include "millrace/error.h"
#include "millrace/time.h"

#include "redis_url.h"
#include "tls_tunnel.h"

struct redisContext;
struct redisReply;

namespace millrace {

/// Commands as they go over the wire (RESP), so that the same bytes can be sent again.
class RedisCommand {
 public:
  /// A command of `arguments` words, the command's name included; they must follow by `add`.
  void begin(std::size_t arguments);
  void add(std::string_view argument);
  void add(std::uint64_t number);
  template <class... Words>
  void put(const Words&... words) {
    begin(sizeof...(words));
    (add(words), ...);
  }
  /// An argument of `size` bytes that the caller appends to `bytes`, followed by `end`.
  void open_argument(std::size_t size);
  void end() { bytes_ += "\r\n"; }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] std::string& bytes() { return bytes_; }
  [[nodiscard]] std::size_t commands() const { return commands_; }
  void append(const RedisCommand& more) {
    bytes_ += more.bytes_;
    commands_ += more.commands_;
  }
  void clear() {
    bytes_.clear();
    commands_ = 0;
  }

 private:
  std::string bytes_;
  std::size_t commands_ = 0;
};

/// Frees a reply.
struct FreeReply {
  void operator()(redisReply* reply) const noexcept;
};
using RedisReply = std::unique_ptr<redisReply, FreeReply>;

/// Its text, whatever type it has; empty for nil.
[[nodiscard]] std::string_view text_of(const redisReply& reply);
[[nodiscard]] bool is_error(const redisReply& reply);
/// The key is somebody else's.
[[nodiscard]] bool is_wrong_type(const redisReply& reply);
[[nodiscard]] bool is_nil(const redisReply& reply);

struct RedisTimeouts {
  Duration connect = std::chrono::seconds(5);
  Duration command = std::chrono::seconds(10);
};

/// One connection, used by one thread at a time. After any failure it is closed, and what was under
/// way on it may or may not have been executed; `open` makes a new one. All failures are Transient
/// and name the server; a refused login and a database that is not there are ConfigError.
class RedisConnection {
 public:
  /// `reconnects` counts the connections after the first; it may be none.
  RedisConnection(RedisAddress address, RedisTimeouts timeouts, Counter* reconnects = nullptr);
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;
  ~RedisConnection();

  [[nodiscard]] bool is_open() const noexcept { return context_ != nullptr; }
  /// Connects and logs in, if it is not open.
  void open();
  void close() noexcept;

  /// Sends commands; their replies must be read, one for each.
  void send(const std::string& commands);
  [[nodiscard]] RedisReply read();
  /// True if a reply, or the end of the connection, can be read without waiting.
  [[nodiscard]] bool readable() const;
  /// Sends one command and reads its reply; nothing else may be under way.
  [[nodiscard]] RedisReply call(const RedisCommand& command);

  [[nodiscard]] const RedisAddress& address() const { return address_; }
  /// Transient for an error that Redis may not give again (no memory, a full disk, loading, a
  /// failing master), else std::runtime_error.
  [[noreturn]] void raise(const redisReply& error) const;

 private:
  struct Free {
    void operator()(redisContext* context) const noexcept;
  };
  [[noreturn]] void lost(const std::string& doing);
  void connect_plainly();
  void log_in();

  RedisAddress address_;
  RedisTimeouts timeouts_;
  Counter* reconnects_;
  bool was_open_ = false;
  std::unique_ptr<TlsTunnel> tunnel_;  ///< goes after the connection
  std::unique_ptr<redisContext, Free> context_;
};

}  // namespace millrace
