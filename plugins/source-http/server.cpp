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
#include "endpoint.h"

namespace millrace {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using SteadyClock = std::chrono::steady_clock;

}  // namespace

Server::Server(const HttpOptions& options, Context& context)
    : hub_(options, context),
      tls_(make_tls(options)),
      io_(static_cast<int>(options.io_threads)),
      acceptor_(asio::any_io_executor(asio::make_strand(io_))) {
  const tcp::endpoint endpoint = listen_endpoint(io_, options.listen);
  // Names may lead elsewhere than when the options were checked.
  if (const std::string why = exposure(options, endpoint); !why.empty()) {
    throw ConfigError("listen", why);
  }
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

bool Server::local() const { return is_local(bound_.address()); }

void Server::start() {
  asio::co_spawn(io_, look(), asio::detached);
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

/// Not the thread in `run`, which the next stage may hold.
asio::awaitable<void> Server::look() {
  asio::steady_timer timer(io_);
  while (true) {
    constexpr std::chrono::milliseconds kStep{100};
    timer.expires_after(kStep);
    co_await timer.async_wait(asio::use_awaitable);
    hub_.look();
  }
}

asio::awaitable<void> Server::accept() {
  asio::steady_timer timer(acceptor_.get_executor());
  while (acceptor_.is_open()) {
    error_code error;
    tcp::socket socket =
        co_await acceptor_.async_accept(asio::any_io_executor(asio::make_strand(io_)),
                                        asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      hub_.warn(fmt::format("cannot accept a connection: {}", error.message()));
      // Out of file descriptors: what waits in the kernel's queue is taken later.
      constexpr std::chrono::milliseconds kPause{20};
      timer.expires_after(kPause);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    hub_.connected();
    const auto executor = socket.get_executor();
    asio::co_spawn(
        executor, serve(hub_, tls_.get(), std::move(socket)),
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
