// Boost.Asio and Boost.Beast are compiled here, once.
#include "http_server.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include <boost/asio/impl/src.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/impl/src.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/src.hpp>
#include <boost/beast/ssl.hpp>
#include <sys/socket.h>

namespace millrace {

class TestServer::Implementation {
 public:
  Implementation(Rule rule, std::uint16_t port, Tls* tls) : rule_(std::move(rule)), tls_(tls) {
    using boost::asio::ip::tcp;
    const tcp::endpoint here(boost::asio::ip::address_v4::loopback(), port);
    acceptor_.open(here.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(here);
    acceptor_.listen();
    port_ = acceptor_.local_endpoint().port();
    thread_ = std::thread([this] { accept(); });
  }
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  ~Implementation() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    wake_.notify_all();
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    thread_.join();
    for (std::thread& connection : connections_) connection.join();
  }

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string url() const {
    return (tls_ != nullptr ? "https" : "http") + ("://127.0.0.1:" + std::to_string(port_));
  }
  void rule(Rule rule) {
    const std::lock_guard lock(mutex_);
    rule_ = std::move(rule);
  }
  [[nodiscard]] std::vector<Request> heads() const {
    const std::lock_guard lock(mutex_);
    return {heads_.begin(), heads_.end()};
  }
  [[nodiscard]] std::vector<Request> taken() const {
    const std::lock_guard lock(mutex_);
    return {taken_.begin(), taken_.end()};
  }

 private:
  using Socket = boost::asio::ip::tcp::socket;

  void accept() {
    while (true) {
      boost::system::error_code error;
      Socket socket(io_);
      acceptor_.accept(socket, error);
      const std::lock_guard lock(mutex_);
      if (error || stopped_) return;
      sockets_.push_back(::dup(socket.native_handle()));
      connections_.emplace_back(
          [this, socket = std::move(socket), copy = sockets_.back()]() mutable {
            serve(std::move(socket));
            const std::lock_guard inner(mutex_);
            std::erase(sockets_, copy);
            ::close(copy);
          });
    }
  }

  void serve(Socket socket) {
    try {
      if (tls_ == nullptr) {
        talk(socket);
        return;
      }
      boost::asio::ssl::stream<Socket> stream(std::move(socket), *tls_);
      stream.handshake(boost::asio::ssl::stream_base::server);
      talk(stream);
    } catch (const std::exception&) {
      return;  // the client went away, or was not let in
    }
  }

  template <class Stream>
  void talk(Stream& stream) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    while (true) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(std::uint64_t{1} << 30U);
      http::read_header(stream, buffer, parser);
      Request request = read(parser.get());
      Rule rule;
      {
        const std::lock_guard lock(mutex_);
        heads_.push_back(request);
        rule = rule_;
      }
      const Reply reply = rule ? rule(request) : Reply{};
      if (reply.how == Reply::How::hang) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stopped_; });
        return;
      }
      if (reply.how == Reply::How::cut) {
        boost::beast::error_code error;
        parser.eager(true);
        http::read_some(stream, buffer, parser, error);
        return;
      }
      if (reply.how == Reply::How::answer) {
        if (boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
          boost::asio::write(stream,
                             boost::asio::buffer(std::string("HTTP/1.1 100 Continue\r\n\r\n")));
        }
        http::read(stream, buffer, parser);
        request.body = parser.get().body();
      }
      const std::string body = reply.made ? reply.made(request) : reply.body;
      if (reply.status / 100 == 2) {
        const std::lock_guard lock(mutex_);
        taken_.push_back(std::move(request));
      }
      http::response<http::string_body> response(http::int_to_status(reply.status), 11);
      if (response.result() == http::status::unknown) response.result(reply.status);
      for (const auto& [name, value] : reply.headers) response.set(name, value);
      response.body() = body;
      response.keep_alive(reply.how == Reply::How::answer);
      response.prepare_payload();
      http::write(stream, response);
      if (reply.how == Reply::How::before_body) return;
    }
  }

  template <class Head>
  static Request read(const Head& head) {
    namespace http = boost::beast::http;
    const auto text = [](boost::beast::string_view view) { return std::string(view); };
    return {text(head.target()),
            text(head["Millrace-Agent"]),
            text(head["Millrace-Chunk"]),
            text(head[http::field::authorization]),
            text(head[http::field::content_encoding]),
            {}};
  }

  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_{io_};
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Rule rule_;
  Tls* tls_;
  bool stopped_ = false;
  std::deque<Request> heads_;
  std::deque<Request> taken_;
  std::vector<int> sockets_;
  std::uint16_t port_ = 0;
  std::vector<std::thread> connections_;
  std::thread thread_;
};

TestServer::TestServer(Rule rule, std::uint16_t port, Tls* tls)
    : implementation_(std::make_unique<Implementation>(std::move(rule), port, tls)) {}
TestServer::~TestServer() = default;
std::uint16_t TestServer::port() const { return implementation_->port(); }
std::string TestServer::url() const { return implementation_->url(); }
void TestServer::rule(Rule rule) { implementation_->rule(std::move(rule)); }
std::vector<Request> TestServer::heads() const { return implementation_->heads(); }
std::vector<Request> TestServer::taken() const { return implementation_->taken(); }

}  // namespace millrace
