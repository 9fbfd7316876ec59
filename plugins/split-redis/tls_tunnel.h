#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "millrace/time.h"

#include "tcp.h"

namespace millrace {

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
