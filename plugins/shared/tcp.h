#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "millrace/time.h"

namespace millrace {

/// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release();

 private:
  int fd_ = -1;
};

/// Waits for poll(2)'s `events`. False if they do not happen until `until`.
[[nodiscard]] bool wait_for(int fd, short events, std::chrono::steady_clock::time_point until);

/// Connects to the first address of `host` that answers, each within `timeout`; the socket does not
/// block. Throws std::runtime_error with the reason of the address that was tried last.
[[nodiscard]] Descriptor connect_tcp(const std::string& host, std::uint16_t port, Duration timeout);

}  // namespace millrace
