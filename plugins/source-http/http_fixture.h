#pragma once

/// A source-http on a free port, with what its tests need around it.

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "millrace/testing.h"

#include "source_http.h"

namespace millrace {

using namespace std::chrono_literals;

/// Polls, so that a slow machine only takes longer.
inline bool eventually(const std::function<bool()>& holds, std::chrono::seconds patience = 30s) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

/// The next stage: keeps packets, and does with receipts what the test says.
class Collector final : public Downstream {
 public:
  enum class Receipts { done, hold, fail };
  struct Seen {
    std::string agent;
    std::string chunk;
    std::uint32_t number;
    std::int64_t time;
    std::uint32_t length;
    std::uint16_t link;
    std::string bytes;
    friend bool operator==(const Seen&, const Seen&) = default;
  };

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Packet>&>(base);
    std::unique_lock lock(mutex_);
    if (batch.items.empty()) ++ticks_;
    open_.wait(lock, [this] { return !blocked_; });
    for (const Packet& p : batch.items) {
      if (keep_) {
        seen_.push_back({p.origin->agent,
                         p.origin->chunk,
                         p.number,
                         p.time.time_since_epoch().count(),
                         p.length,
                         static_cast<std::uint16_t>(p.link),
                         {reinterpret_cast<const char*>(p.data), p.captured}});
      }
      ++packets_;
    }
    watermark_ = batch.watermark;
    if (receipts_ == Receipts::done) batch.receipt.done();
    if (receipts_ == Receipts::fail) batch.receipt.fail();
    if (batch.receipt) held_.push_back(std::move(batch.receipt));
    const Batch<Packet> gone(std::move(batch));
  }

  void receipts(Receipts what) {
    const std::lock_guard lock(mutex_);
    receipts_ = what;
  }
  void block(bool on) {
    {
      const std::lock_guard lock(mutex_);
      blocked_ = on;
    }
    open_.notify_all();
  }
  void keep(bool on) {
    const std::lock_guard lock(mutex_);
    keep_ = on;
  }
  std::size_t held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  void resolve(Outcome outcome) {
    std::vector<Receipt> held;
    {
      const std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (Receipt& receipt : held) receipt.resolve(outcome);
  }
  std::vector<Seen> seen() {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  void forget() {
    const std::lock_guard lock(mutex_);
    seen_.clear();
  }
  std::uint64_t packets() {
    const std::lock_guard lock(mutex_);
    return packets_;
  }
  std::uint64_t ticks() {
    const std::lock_guard lock(mutex_);
    return ticks_;
  }
  Timestamp watermark() {
    const std::lock_guard lock(mutex_);
    return watermark_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable open_;
  bool blocked_ = false;
  bool keep_ = true;
  Receipts receipts_ = Receipts::done;
  std::vector<Receipt> held_;
  std::vector<Seen> seen_;
  std::uint64_t packets_ = 0;
  std::uint64_t ticks_ = 0;
  Timestamp watermark_ = kNoTime;
};

struct Reply {
  int status = 0;  ///< 0: the connection ended without an answer
  std::string head;
  std::string body;
};

inline std::string request(std::string_view body, const std::string& headers = "") {
  return "POST /v1/captures HTTP/1.1\r\nHost: x\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

/// A plain client that sends and reads what it is told.
class Client {
 public:
  explicit Client(std::uint16_t port) : Client("127.0.0.1", port) {}
  /// From an address of this machine.
  Client(const char* from, std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in own{};
    own.sin_family = AF_INET;
    ::inet_pton(AF_INET, from, &own.sin_addr);
    ::bind(socket_, reinterpret_cast<sockaddr*>(&own), sizeof own);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    timeval patience{60, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  }
  Client(Client&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)),
        connected_(other.connected_),
        rest_(std::move(other.rest_)) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  Client& operator=(Client&&) = delete;
  ~Client() {
    if (socket_ >= 0) ::close(socket_);
  }

  [[nodiscard]] bool connected() const { return connected_; }

  bool send(std::string_view data) {
    while (!data.empty()) {
      const ssize_t sent = ::send(socket_, data.data(), data.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      data.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// Whether the server says anything, or closes, within so long.
  bool hears(std::chrono::milliseconds patience) {
    timeval time{patience.count() / 1000, (patience.count() % 1000) * 1000};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(socket_, &set);
    return ::select(socket_ + 1, &set, nullptr, nullptr, &time) > 0;
  }
  Reply receive() {
    Reply reply;
    std::size_t end = 0;
    while ((end = rest_.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return reply;
    }
    reply.head = rest_.substr(0, end + 2);
    rest_.erase(0, end + 4);
    reply.status = std::stoi(reply.head.substr(9, 3));
    const std::size_t at = reply.head.find("Content-Length: ");
    const std::size_t size = at == std::string::npos ? 0 : std::stoul(reply.head.substr(at + 16));
    while (rest_.size() < size) {
      if (!more()) return reply;
    }
    reply.body = rest_.substr(0, size);
    rest_.erase(0, size);
    return reply;
  }
  Reply post(std::string_view body, const std::string& headers = "") {
    send(request(body, headers));
    return receive();
  }

 private:
  bool more() {
    std::array<char, 65536> block{};
    const ssize_t got = ::recv(socket_, block.data(), block.size(), 0);
    if (got <= 0) return false;
    rest_.append(block.data(), static_cast<std::size_t>(got));
    return true;
  }

  int socket_;
  bool connected_ = false;
  std::string rest_;
};

inline std::string word(std::uint32_t value) {
  std::string text(4, '\0');
  std::memcpy(text.data(), &value, 4);
  return text;
}

/// A classic capture with records of `size` bytes at 1 s, 2 s, ...
inline std::string classic(int records, std::uint32_t size = 10, std::uint32_t link = 1) {
  std::string file =
      word(0xA1B2C3D4) + std::string("\2\0\4\0", 4) + word(0) + word(0) + word(65535) + word(link);
  for (int i = 0; i < records; ++i) {
    file += word(static_cast<std::uint32_t>(i + 1)) + word(5) + word(size) + word(size + 100) +
            std::string(size, static_cast<char>('a' + i % 26));
  }
  return file;
}

class HttpTest : public ::testing::Test {
 protected:
  HttpTest() {
    options_.listen = "127.0.0.1:0";
    options_.finish = 5s;
  }
  ~HttpTest() override { stop(); }
  HttpTest(const HttpTest&) = delete;
  HttpTest& operator=(const HttpTest&) = delete;

  void start() {
    source_ = std::make_unique<SourceHttp>(options_);
    source_->open(context_);
    for (const auto& [level, message] : context_.messages()) {
      if (const auto at = message.find("listening on "); at != std::string::npos) {
        url_ = message.substr(at + 13);
      }
    }
    port_ = static_cast<std::uint16_t>(std::stoul(url_.substr(url_.rfind(':') + 1)));
    thread_ = std::thread([this] {
      Output<Packet> out(next_);
      source_->run(out, stop_.get_token());
      returned_ = true;
    });
  }
  void stop() {
    if (!source_) return;
    stop_.request_stop();
    next_.block(false);
    thread_.join();
    source_->close();
    source_.reset();
  }
  Client client() const { return Client(port_); }
  std::uint64_t count(const std::string& name) { return context_.counter(name).value(); }

  HttpOptions options_;
  testing::TestContext context_;
  Collector next_;
  std::stop_source stop_;
  std::atomic<bool> returned_{false};
  std::unique_ptr<SourceHttp> source_;
  std::string url_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace millrace
