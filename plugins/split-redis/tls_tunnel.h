#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

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

/// TLS for a client library that knows none: connects to a server, checks its certificate, and
/// gives out a local socket behind which a thread encrypts and decrypts. When either end is closed
/// the other is closed too.
class TlsTunnel {
 public:
  /// `ca_file` holds the certificates to trust, empty: those of the system. Throws Transient if the
  /// server cannot be reached, ConfigError for the option "server" if it cannot be trusted and for
  /// "ca" if the file is no use.
  TlsTunnel(const std::string& host, std::uint16_t port, const std::string& ca_file,
            Duration timeout);
  TlsTunnel(const TlsTunnel&) = delete;
  TlsTunnel& operator=(const TlsTunnel&) = delete;
  ~TlsTunnel();

  /// The local socket, to be closed by the caller.
  [[nodiscard]] int take_socket() { return near_.release(); }

 private:
  struct Tls;
  void connect(const std::string& host, std::uint16_t port, Duration timeout);
  void pump() noexcept;

  Descriptor server_;
  Descriptor near_;  ///< the caller's end
  Descriptor far_;   ///< the thread's end
  std::unique_ptr<Tls> tls_;
  std::thread thread_;
};

}  // namespace millrace
