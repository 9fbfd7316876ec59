#include "run/admin.h"

#include <charconv>
#include <chrono>
#include <csignal>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <fmt/format.h>
#include <pthread.h>

namespace millrace::host {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;

/// For a request, and between two.
constexpr std::chrono::seconds kPatience{10};
constexpr std::size_t kMostSessions = 32;

http::response<http::string_body> answer(const http::request<http::string_body>& request,
                                         const Admin::Answers& answers) {
  http::response<http::string_body> response(http::status::ok, request.version());
  response.keep_alive(request.keep_alive());
  const std::string target(request.target().substr(0, request.target().find('?')));
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    response.result(http::status::method_not_allowed);
    response.set(http::field::allow, "GET, HEAD");
  } else if (target == "/health") {
    const Admin::Readiness health = answers.health();
    if (!health.ok) response.result(http::status::service_unavailable);
    response.set(http::field::content_type, "application/json");
    response.body() = health.json + "\n";
  } else if (target == "/metrics") {
    response.set(http::field::content_type, "text/plain; version=0.0.4");
    response.body() = answers.metrics();
  } else {
    response.result(http::status::not_found);
    response.set(http::field::content_type, "text/plain");
    response.body() = "there are /health and /metrics\n";
  }
  response.content_length(response.body().size());
  if (request.method() == http::verb::head) response.body().clear();
  return response;
}

/// What is asked, and may be replaced, on different threads.
class Desk {
 public:
  explicit Desk(Admin::Answers answers) : answers_(std::move(answers)) {}
  void set(Admin::Answers answers) {
    const std::lock_guard lock(mutex_);
    answers_ = std::move(answers);
  }
  http::response<http::string_body> ask(const http::request<http::string_body>& request) {
    const std::lock_guard lock(mutex_);
    return answer(request, answers_);
  }

 private:
  std::mutex mutex_;
  Admin::Answers answers_;
};

/// One connection; keeps itself alive by the handlers that wait.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, Desk& desk) : stream_(std::move(socket)), desk_(desk) {}

  void read() {
    request_ = {};
    stream_.expires_after(kPatience);
    http::async_read(stream_, buffer_, request_,
                     [self = shared_from_this()](beast::error_code error, std::size_t) {
                       if (!error) self->write();
                     });
  }

  void close() { stream_.close(); }

 private:
  void write() {
    response_ = desk_.ask(request_);
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, std::size_t) {
                        if (!error && self->response_.keep_alive()) self->read();
                      });
  }

  beast::tcp_stream stream_;
  Desk& desk_;
  beast::flat_buffer buffer_{16384};
  http::request<http::string_body> request_;
  http::response<http::string_body> response_;
};

struct Address {
  std::string host;
  std::string port;
};

Address parse(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) throw std::runtime_error("expected HOST:PORT");
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) host = "127.0.0.1";
  const std::string port = address.substr(colon + 1);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  constexpr unsigned kHighest = 65535;
  if (error != std::errc() || end != port.data() + port.size() || number > kHighest) {
    throw std::runtime_error("expected HOST:PORT with a port from 0 to 65535");
  }
  return {std::move(host), port};
}

tcp::endpoint resolve(asio::io_context& context, const std::string& address) {
  const auto [host, port] = parse(address);
  tcp::resolver resolver(context);
  return *resolver.resolve(host, port, tcp::resolver::passive | tcp::resolver::numeric_service)
              .begin();
}

}  // namespace

class Admin::Server {
 public:
  Server(const std::string& address, Answers answers)
      : desk_(std::move(answers)), acceptor_(context_) {
    try {
      const tcp::endpoint endpoint = resolve(context_, address);
      acceptor_.open(endpoint.protocol());
      acceptor_.set_option(tcp::acceptor::reuse_address(true));
      acceptor_.bind(endpoint);
      acceptor_.listen();
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("cannot listen on '{}': {}", address, error.what()));
    }
    accept();
    thread_ = std::thread([this] { serve(); });
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() {
    context_.stop();
    thread_.join();
  }

  void answer(Answers answers) { desk_.set(std::move(answers)); }

  [[nodiscard]] std::string url() const {
    const tcp::endpoint local = acceptor_.local_endpoint();
    const std::string host = local.address().to_string();
    return fmt::format("http://{}:{}", local.address().is_v6() ? "[" + host + "]" : host,
                       local.port());
  }

 private:
  void serve() {
    // Signals are the main thread's.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    pthread_setname_np(pthread_self(), "admin");
    while (!context_.stopped()) {
      try {
        context_.run();
      } catch (const std::exception&) {
        // Of one connection, which is closed with its last handler; the others go on.
      }
    }
  }

  void accept() {
    acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) return accept_later();
      make_room(kMostSessions - 1);
      const auto session = std::make_shared<Session>(std::move(socket), desk_);
      sessions_.push_back(session);
      session->read();
      accept();
    });
  }

  /// No descriptors are left, say: trying at once would fail again, and take the processor from
  /// those who could free some.
  void accept_later() {
    constexpr std::chrono::milliseconds kPause{100};
    make_room(sessions_.size() / 2);
    pause_.expires_after(kPause);
    pause_.async_wait([this](beast::error_code error) {
      if (!error) accept();
    });
  }

  /// Closes the oldest connections until at most `most` are left.
  void make_room(std::size_t most) {
    std::erase_if(sessions_, [](const std::weak_ptr<Session>& one) { return one.expired(); });
    while (sessions_.size() > most) {
      if (const auto oldest = sessions_.front().lock()) oldest->close();
      sessions_.pop_front();
    }
  }

  Desk desk_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer pause_{context_};
  std::deque<std::weak_ptr<Session>> sessions_;  ///< oldest first
  std::thread thread_;
};

Admin::Admin(const std::string& address, Answers answers)
    : server_(std::make_unique<Server>(address, std::move(answers))) {}
void Admin::check(const std::string& address) { static_cast<void>(parse(address)); }
Admin::~Admin() = default;
void Admin::answer(Answers answers) { server_->answer(std::move(answers)); }
std::string Admin::url() const { return server_->url(); }

}  // namespace millrace::host
