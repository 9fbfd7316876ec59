#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace millrace::testing {

/// A network between a client and a server on this machine that can be cut: connections end, and
/// new ones end at once.
class Relay {
 public:
  explicit Relay(std::uint16_t target) : target_(target) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no port for a relay");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay() {
    thread_ = {};
    ::close(listener_);
  }

  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void cut() { is_cut_ = true; }
  void mend() { is_cut_ = false; }

 private:
  static sockaddr_in local(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  void run(const std::stop_token& stop) {
    std::vector<std::pair<int, int>> pairs;
    while (!stop.stop_requested()) {
      std::vector<pollfd> waits{{listener_, POLLIN, 0}};
      for (const auto& [a, b] : pairs) {
        waits.push_back({a, POLLIN, 0});
        waits.push_back({b, POLLIN, 0});
      }
      ::poll(waits.data(), waits.size(), 10);
      for (std::size_t i = 0; i < pairs.size();) {
        const auto [a, b] = pairs[i];
        if (!is_cut_ && pass(waits[1 + 2 * i], b) && pass(waits[2 + 2 * i], a)) {
          ++i;
          continue;
        }
        ::close(a);
        ::close(b);
        pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(i));
        waits.erase(waits.begin() + static_cast<std::ptrdiff_t>(1 + 2 * i),
                    waits.begin() + static_cast<std::ptrdiff_t>(3 + 2 * i));
      }
      if ((waits[0].revents & POLLIN) != 0) accept(pairs);
    }
    for (const auto& [a, b] : pairs) {
      ::close(a);
      ::close(b);
    }
  }

  void accept(std::vector<std::pair<int, int>>& pairs) const {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local(target_);
    if (!is_cut_ &&
        ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      pairs.emplace_back(client, server);
    } else {
      ::close(client);
      ::close(server);
    }
  }

  static bool pass(const pollfd& from, int to) {
    if (from.revents == 0) return true;
    std::array<char, 65536> piece{};
    const ssize_t size = ::read(from.fd, piece.data(), piece.size());
    return size > 0 &&
           ::send(to, piece.data(), static_cast<std::size_t>(size), MSG_NOSIGNAL) == size;
  }

  const std::uint16_t target_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> is_cut_{false};
  std::jthread thread_;
};

}  // namespace millrace::testing
