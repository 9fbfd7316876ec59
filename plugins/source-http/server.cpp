#include "server.h"

#include <exception>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include "millrace/error.h"

#include "connection.h"

namespace millrace {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using SteadyClock = std::chrono::steady_clock;

/// "HOST:PORT", the host of IPv6 in brackets.
tcp::endpoint resolve(asio::io_context& io, const std::string& listen) {
  const auto wrong = [&](const std::string& why) {
    return ConfigError("listen", fmt::format("'{}': {}", listen, why));
  };
  const std::size_t colon = listen.rfind(':');
  if (colon == std::string::npos) throw wrong("expected HOST:PORT");
  std::string host = listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    throw wrong("an IPv6 address is written in brackets: [::]:8080");
  }
  if (host.empty()) throw wrong("expected HOST:PORT, such as 0.0.0.0:8080");
  const std::string port = listen.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != std::string::npos ||
      port.size() > 5 || std::stoul(port) > 65535) {
    throw wrong("the port must be 0 to 65535");
  }
  tcp::resolver resolver(io);
  error_code error;
  const auto found =
      resolver.resolve(host, port, tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) throw wrong(error.message());
  return found.begin()->endpoint();
}

}  // namespace

Server::Server(const HttpOptions& options, Context& context)
    : hub_(options, context),
      tls_(make_tls(options)),
      io_(static_cast<int>(options.io_threads)),
      acceptor_(asio::any_io_executor(asio::make_strand(io_))) {
  const tcp::endpoint endpoint = resolve(io_, options.listen);
  const auto check = [&](const error_code& error) {
    if (!error) return;
    throw ConfigError("listen",
                      fmt::format("cannot listen on {}: {}", options.listen, error.message()));
  };
  error_code error;
  check(acceptor_.open(endpoint.protocol(), error));
  check(acceptor_.set_option(tcp::acceptor::reuse_address(true), error));
  check(acceptor_.bind(endpoint, error));
  check(acceptor_.listen(asio::socket_base::max_listen_connections, error));
  bound_ = acceptor_.local_endpoint();
}

Server::~Server() { stop(); }

std::string Server::url() const {
  const std::string address = bound_.address().to_string();
  return fmt::format("{}://{}:{}", tls_ ? "https" : "http",
                     bound_.address().is_v6() ? '[' + address + ']' : address, bound_.port());
}

void Server::start() {
  asio::co_spawn(acceptor_.get_executor(), accept(), asio::detached);
  for (std::uint32_t i = 0; i < hub_.options.io_threads; ++i) {
    threads_.emplace_back([this] {
      while (!io_.stopped()) {
        try {
          io_.run();
          return;
        } catch (const std::exception& error) {
          hub_.warn(fmt::format("a connection ended with an error: {}", error.what()));
        }
      }
    });
  }
}

asio::awaitable<void> Server::accept() {
  asio::steady_timer timer(acceptor_.get_executor());
  while (acceptor_.is_open()) {
    error_code error;
    std::optional<tcp::socket> socket;
    if (hub_.connections < hub_.options.max_connections) {
      socket.emplace(
          co_await acceptor_.async_accept(asio::any_io_executor(asio::make_strand(io_)),
                                          asio::redirect_error(asio::use_awaitable, error)));
      if (error == asio::error::operation_aborted) co_return;
      if (error) {
        hub_.warn(fmt::format("cannot accept a connection: {}", error.message()));
        socket.reset();
      }
    }
    if (!socket) {
      // Full, or out of file descriptors: what waits in the kernel's queue is taken later.
      constexpr std::chrono::milliseconds kPause{20};
      timer.expires_after(kPause);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    ++hub_.connections;
    hub_.connected();
    const auto executor = socket->get_executor();
    asio::co_spawn(
        executor, serve(hub_, tls_.get(), std::move(*socket)),
        [this](const std::exception_ptr& failed) {
          if (!failed) return;
          try {
            std::rethrow_exception(failed);
          } catch (const std::exception& problem) {
            hub_.warn(fmt::format("a connection ended with an error: {}", problem.what()));
          }
        });
  }
}

void Server::drain() {
  if (hub_.draining.exchange(true)) return;
  asio::post(acceptor_.get_executor(), [this] {
    error_code ignored;
    acceptor_.close(ignored);
    auto timer = std::make_shared<asio::steady_timer>(io_, hub_.options.finish);
    timer->async_wait([this, timer](const error_code&) {
      hub_.give_up_all();
      over_since_ = SteadyClock::now().time_since_epoch().count();
    });
  });
}

bool Server::idle() const { return hub_.uploads() == 0 && *hub_.services.unresolved == 0; }

bool Server::over() const {
  // A client that does not read its answer is not waited for.
  constexpr std::chrono::milliseconds kGrace{500};
  const SteadyClock::rep since = over_since_;
  if (since == 0) return false;
  return hub_.uploads() == 0 ||
         SteadyClock::now().time_since_epoch() - SteadyClock::duration(since) > kGrace;
}

void Server::stop() {
  hub_.draining = true;
  hub_.give_up_all();
  hub_.services.hand_over->close();
  hub_.parsers.stop();
  io_.stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  hub_.door->shut();
}

}  // namespace millrace
