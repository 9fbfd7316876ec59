#include "tls_tunnel.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include "millrace/error.h"

namespace millrace {

namespace {

using SteadyClock = std::chrono::steady_clock;

std::string tls_error() {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return text.data();
}

/// Bytes on their way in one direction.
struct Piece {
  std::array<char, 16384> bytes;
  std::size_t from = 0;
  std::size_t to = 0;
  [[nodiscard]] bool empty() const { return from == to; }
};

}  // namespace

struct TlsTunnel::Tls {
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
    void operator()(SSL* session) const { SSL_free(session); }
  };
  std::unique_ptr<SSL_CTX, Free> context;
  std::unique_ptr<SSL, Free> session;
};

TlsTunnel::TlsTunnel(const std::string& host, std::uint16_t port, const std::string& ca_file,
                     Duration timeout)
    : tls_(std::make_unique<Tls>()) {
  const std::string name = "Redis at " + host + ":" + std::to_string(port);
  tls_->context.reset(SSL_CTX_new(TLS_client_method()));
  if (!tls_->context) throw std::runtime_error("TLS: " + tls_error());
  SSL_CTX_set_min_proto_version(tls_->context.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(tls_->context.get(), SSL_VERIFY_PEER, nullptr);
  if (ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(tls_->context.get());
  } else if (SSL_CTX_load_verify_locations(tls_->context.get(), ca_file.c_str(), nullptr) != 1) {
    throw ConfigError("ca", ca_file + ": " + tls_error());
  }
  connect(host, port, timeout);

  tls_->session.reset(SSL_new(tls_->context.get()));
  SSL* session = tls_->session.get();
  if (session == nullptr) throw std::runtime_error("TLS: " + tls_error());
  std::array<unsigned char, 16> address{};
  const bool numeric = ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
                       ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
  if (numeric) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), host.c_str());
  } else {
    SSL_set1_host(session, host.c_str());
    SSL_set_tlsext_host_name(session, host.c_str());
  }
  SSL_set_mode(session, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_set_fd(session, server_.get());
  const auto until = SteadyClock::now() + timeout;
  while (true) {
    ERR_clear_error();
    const int code = SSL_connect(session);
    if (code == 1) break;
    const int why = SSL_get_error(session, code);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
      if (wait_for(server_.get(), why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until)) continue;
      throw Transient(name + ": no TLS handshake in time");
    }
    const auto verified = SSL_get_verify_result(session);
    if (verified != X509_V_OK) {
      throw ConfigError("server",
                        name + " cannot be trusted: " + X509_verify_cert_error_string(verified));
    }
    throw Transient(name + ": TLS: " + tls_error());
  }

  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    throw std::runtime_error(std::string("socketpair: ") + std::strerror(errno));
  }
  near_ = Descriptor(pair[0]);
  far_ = Descriptor(pair[1]);
  thread_ = std::thread([this] { pump(); });
}

TlsTunnel::~TlsTunnel() {
  if (!thread_.joinable()) return;
  ::shutdown(far_.get(), SHUT_RDWR);
  thread_.join();
}

void TlsTunnel::connect(const std::string& host, std::uint16_t port, Duration timeout) {
  const std::string name = "Redis at " + host + ":" + std::to_string(port);
  try {
    server_ = connect_tcp(host, port, timeout);
  } catch (const std::runtime_error& error) {
    throw Transient(name + ": cannot connect: " + error.what());
  }
  const int yes = 1;
  ::setsockopt(server_.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  ::setsockopt(server_.get(), SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
}

void TlsTunnel::pump() noexcept {
  // OpenSSL writes to a socket that may be closed; the error is enough.
  sigset_t pipe;
  ::sigemptyset(&pipe);
  ::sigaddset(&pipe, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  SSL* session = tls_->session.get();
  const auto pieces = std::make_unique<std::array<Piece, 2>>();
  Piece& in = (*pieces)[0];
  Piece& out = (*pieces)[1];
  bool open = true;
  while (open) {
    bool moved = false;
    short server_events = POLLIN;
    // What TLS says to something that did not happen at once; false ends the tunnel.
    const auto later = [&](int code) {
      const int why = SSL_get_error(session, code);
      if (why == SSL_ERROR_WANT_WRITE) server_events |= POLLOUT;
      return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
    };
    ERR_clear_error();
    if (in.empty()) {
      const int got = SSL_read(session, in.bytes.data(), static_cast<int>(in.bytes.size()));
      if (got > 0) {
        in.from = 0;
        in.to = static_cast<std::size_t>(got);
        moved = true;
      } else {
        open = later(got);
      }
    }
    if (!in.empty()) {
      const ssize_t sent = ::send(far_.get(), in.bytes.data() + in.from, in.to - in.from,
                                  MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) {
        in.from += static_cast<std::size_t>(sent);
        moved = true;
      } else if (errno != EAGAIN && errno != EINTR) {
        open = false;
      }
    }
    if (out.empty()) {
      const ssize_t got = ::recv(far_.get(), out.bytes.data(), out.bytes.size(), MSG_DONTWAIT);
      if (got > 0) {
        out.from = 0;
        out.to = static_cast<std::size_t>(got);
        moved = true;
      } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        open = false;
      }
    }
    ERR_clear_error();
    if (open && !out.empty()) {
      const int sent =
          SSL_write(session, out.bytes.data() + out.from, static_cast<int>(out.to - out.from));
      if (sent > 0) {
        out.from += static_cast<std::size_t>(sent);
        moved = true;
      } else {
        open = later(sent);
      }
    }
    if (moved || !open) continue;
    std::array<pollfd, 2> wait = {pollfd{server_.get(), server_events, 0},
                                  pollfd{far_.get(), 0, 0}};
    if (out.empty()) wait[1].events |= POLLIN;
    if (!in.empty()) {
      wait[0].events &= static_cast<short>(~POLLIN);
      wait[1].events |= POLLOUT;
    }
    ::poll(wait.data(), wait.size(), -1);
    // A poll that reports only an end would come back at once for ever.
    if ((wait[1].revents & (POLLHUP | POLLERR)) != 0 && (wait[1].revents & POLLIN) == 0) {
      open = false;
    }
  }
  ::shutdown(far_.get(), SHUT_RDWR);
  ::shutdown(server_.get(), SHUT_RDWR);
}

}  // namespace millrace
