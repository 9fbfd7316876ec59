#include "connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace millrace {

namespace {

timeval to_timeval(Duration duration) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return {static_cast<time_t>(us / 1000000), static_cast<suseconds_t>(us % 1000000)};
}

/// Errors that Redis may not give again: it has no memory, is loading, its disk is full, a failover
/// is going on, or it has too many clients.
bool is_transient(std::string_view error) {
  constexpr auto kBegins = std::to_array<std::string_view>(
      {"OOM", "LOADING", "BUSY", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MISCONF",
       "NOREPLICAS", "ORDER", "UNKILLABLE", "ERR max number of clients"});
  return std::ranges::any_of(kBegins,
                             [&](std::string_view word) { return error.starts_with(word); });
}

void put_number(std::string& to, char mark, std::size_t number) {
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  to += mark;
  to.append(digits.data(), end);
  to += "\r\n";
}

}  // namespace

void RedisCommand::begin(std::size_t arguments) {
  put_number(bytes_, '*', arguments);
  ++commands_;
}

void RedisCommand::add(std::string_view argument) {
  open_argument(argument.size());
  bytes_ += argument;
  end();
}

void RedisCommand::open_argument(std::size_t size) { put_number(bytes_, '$', size); }

void RedisCommand::add(std::uint64_t number) { add(std::to_string(number)); }

void FreeReply::operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }

std::string_view text_of(const redisReply& reply) {
  return reply.str == nullptr ? std::string_view() : std::string_view(reply.str, reply.len);
}
bool is_error(const redisReply& reply) { return reply.type == REDIS_REPLY_ERROR; }
bool is_wrong_type(const redisReply& reply) {
  return is_error(reply) && text_of(reply).starts_with("WRONGTYPE");
}
bool is_nil(const redisReply& reply) { return reply.type == REDIS_REPLY_NIL; }

void RedisConnection::Free::operator()(redisContext* context) const noexcept { redisFree(context); }

RedisConnection::RedisConnection(RedisAddress address, RedisTimeouts timeouts, Counter* reconnects)
    : address_(std::move(address)), timeouts_(timeouts), reconnects_(reconnects) {}

RedisConnection::~RedisConnection() = default;

void RedisConnection::connect_plainly() {
  const timeval patience = to_timeval(timeouts_.connect);
  context_.reset(address_.unix_path.empty()
                     ? redisConnectWithTimeout(address_.host.c_str(), address_.port, patience)
                     : redisConnectUnixWithTimeout(address_.unix_path.c_str(), patience));
}

void RedisConnection::open() {
  if (context_) return;
  tunnel_.reset();
  if (address_.tls) {
    tunnel_ = std::make_unique<TlsTunnel>(address_.host, address_.port, address_.ca_file,
                                          timeouts_.connect);
    context_.reset(redisConnectFd(tunnel_->take_socket()));
  } else {
    connect_plainly();
  }
  if (!context_) throw std::bad_alloc();
  if (context_->err != 0) lost("cannot connect");
  if (redisSetTimeout(context_.get(), to_timeval(timeouts_.command)) != REDIS_OK) {
    lost("cannot set a time-out");
  }
  if (address_.unix_path.empty() && !address_.tls) {
    const int yes = 1;
    ::setsockopt(context_->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    redisEnableKeepAlive(context_.get());
  }
  log_in();
  if (std::exchange(was_open_, true) && reconnects_ != nullptr) reconnects_->add();
}

void RedisConnection::log_in() {
  const auto must = [this](const RedisCommand& command) {
    const RedisReply reply = call(command);
    if (!is_error(*reply)) return;
    const std::string text(text_of(*reply));
    close();
    if (is_transient(text)) throw Transient(address_.name() + ": " + text);
    throw ConfigError("server", address_.name() + " refuses: " + text);
  };
  RedisCommand command;
  if (!address_.password.empty() || !address_.user.empty()) {
    if (address_.user.empty()) {
      command.put(std::string_view("AUTH"), std::string_view(address_.password));
    } else {
      command.put(std::string_view("AUTH"), std::string_view(address_.user),
                  std::string_view(address_.password));
    }
    must(command);
    command.clear();
  }
  if (address_.database != 0) {
    command.put(std::string_view("SELECT"), std::uint64_t{address_.database});
    must(command);
    command.clear();
  }
  // A server that wants a login says so to anything.
  command.put(std::string_view("PING"));
  must(command);
}

void RedisConnection::close() noexcept {
  context_.reset();
  tunnel_.reset();
}

void RedisConnection::lost(const std::string& doing) {
  std::string cause = context_ ? context_->errstr : "";
  if (context_ && context_->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    cause = "no answer in time";
  }
  close();
  throw Transient(address_.name() + ": " + doing + (cause.empty() ? "" : ": " + cause));
}

void RedisConnection::send(const std::string& commands) {
  if (!context_) throw Transient(address_.name() + ": not connected");
  // Past hiredis's own buffer, which would copy everything once more.
  std::size_t sent = 0;
  while (sent < commands.size()) {
    const ssize_t n =
        ::send(context_->fd, commands.data() + sent, commands.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const std::string why = std::strerror(errno);
      close();
      throw Transient(address_.name() + ": cannot send: " + why);
    }
    sent += static_cast<std::size_t>(n);
  }
}

RedisReply RedisConnection::read() {
  if (!context_) throw Transient(address_.name() + ": not connected");
  void* reply = nullptr;
  if (redisGetReply(context_.get(), &reply) != REDIS_OK || reply == nullptr) {
    lost("the connection is lost");
  }
  return RedisReply(static_cast<redisReply*>(reply));
}

bool RedisConnection::readable() const {
  if (!context_) return true;
  if (context_->reader->pos < context_->reader->len) return true;
  pollfd poll_for{context_->fd, POLLIN, 0};
  return ::poll(&poll_for, 1, 0) > 0;
}

RedisReply RedisConnection::call(const RedisCommand& command) {
  send(command.bytes());
  return read();
}

void RedisConnection::raise(const redisReply& error) const {
  const std::string text = address_.name() + ": " + std::string(text_of(error));
  if (is_transient(text_of(error))) throw Transient(text);
  throw std::runtime_error(text);
}

}  // namespace millrace
