#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "hub.h"

namespace millrace {

/// Accepts connections and serves them on threads of its own.
class Server {
 public:
  /// Listens; throws ConfigError. Connections wait until `start`.
  Server(const HttpOptions& options, Context& context);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] std::string url() const;
  [[nodiscard]] HandOver& hand_over() { return *hub_.services.hand_over; }

  [[nodiscard]] bool local() const;
  void sum_up() { hub_.sum_up(); }

  void start();
  /// Any thread: takes no more uploads, gives those under way `finish` time.
  void drain();
  [[nodiscard]] bool draining() const { return hub_.draining; }
  /// No upload is under way and no receipt is open.
  [[nodiscard]] bool idle() const;
  /// The time for draining is over, and whoever could be told was.
  [[nodiscard]] bool over() const;
  /// Ends everything and waits for its threads.
  void stop();

 private:
  boost::asio::awaitable<void> accept();
  boost::asio::awaitable<void> look();

  Hub hub_;
  std::unique_ptr<boost::asio::ssl::context> tls_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::ip::tcp::endpoint bound_;
  std::vector<std::thread> threads_;
  std::atomic<std::chrono::steady_clock::rep> over_since_{0};
};

}  // namespace millrace
