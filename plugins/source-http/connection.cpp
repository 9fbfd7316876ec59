#include "connection.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <fmt/format.h>

#include "admission.h"
#include "pace.h"

namespace millrace {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using SteadyClock = std::chrono::steady_clock;
using Parser = http::request_parser<http::buffer_body>;

constexpr std::size_t kBlock = std::size_t{64} * 1024;
constexpr std::size_t kMostHeader = std::size_t{16} * 1024;
/// Bodies are measured here; Beast 1.74 takes `none` for zero.
constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
/// A body that is not wanted is read to its end if no more than this is left of it; beyond, the
/// connection is closed.
constexpr std::uint64_t kMostDiscarded = 1U << 20U;

template <class Stream>
class Connection {
 public:
  Connection(Hub& hub, Connections::Line& line, Stream& stream, std::string peer)
      : hub_(hub),
        line_(line),
        stream_(stream),
        peer_(std::move(peer)),
        timer_(std::make_shared<asio::steady_timer>(stream.get_executor())) {
    // The posted function may come late: it keeps the timer and nothing else.
    wakeup_->attach(
        [timer = timer_] { asio::post(timer->get_executor(), [timer] { timer->cancel(); }); });
  }
  ~Connection() { wakeup_->detach(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  asio::awaitable<void> run() {
    while (co_await next_request()) {
      const bool again = co_await one_request();
      if (!again) break;
    }
  }

 private:
  void expire(Duration after) { beast::get_lowest_layer(stream_).expires_after(after); }

  /// Waits for the first bytes of a request, without much memory. False: none will come.
  asio::awaitable<bool> next_request() {
    if (buffer_.size() != 0) co_return true;
    constexpr std::size_t kFirst = 1024;
    buffer_ = beast::flat_buffer(kBlock);
    expire(std::exchange(first_, false) ? hub_.options.header_timeout : hub_.options.idle_timeout);
    hub_.connections.waits(line_);
    error_code error;
    auto space = buffer_.prepare(kFirst);
    const std::size_t got =
        co_await stream_.async_read_some(space, asio::redirect_error(asio::use_awaitable, error));
    buffer_.commit(got);
    co_return !error;
  }

  /// False: the connection ends.
  asio::awaitable<bool> one_request() {
    Parser parser;
    parser.header_limit(kMostHeader);
    parser.body_limit(kNoLimit);
    expire(hub_.options.header_timeout);
    error_code error;
    co_await http::async_read_header(stream_, buffer_, parser,
                                     asio::redirect_error(asio::use_awaitable, error));
    continue_asked_ = false;
    if (error) {
      if (error.category() != http::make_error_code(http::error::bad_method).category() ||
          error == http::error::end_of_stream || error == http::error::partial_message) {
        co_return false;
      }
      const Answer answer = refusal(error == http::error::header_limit ? 431 : 400,
                                    fmt::format("no HTTP request: {}", error.message()));
      co_await write(answer, 11, false);
      co_await linger(kMostDiscarded);
      co_return false;
    }
    continue_asked_ = beast::iequals(parser.get()[http::field::expect], "100-continue");
    if (std::optional<Answer> at_once = answer_at_once(hub_, parser.get())) {
      hub_.record(*at_once, nullptr, peer_, nullptr);
      co_return co_await finish(parser, *at_once, nullptr);
    }
    std::optional<Hub::Request> request(std::in_place, hub_, line_);
    if (!request->good()) co_return false;
    const Answer answer = co_await upload(parser, *request);
    request->refused();
    co_return co_await finish(parser, answer, &request);
  }

  asio::awaitable<Answer> upload(Parser& parser, Hub::Request& request) {
    UploadHead head;
    const BodyLength length{parser.content_length().has_value(),
                            parser.content_length().value_or(0), parser.chunked()};
    if (std::optional<Answer> refused = refuse(hub_, parser.get(), length, head)) {
      hub_.record(*refused, nullptr, peer_, head.origin.chunk.empty() ? nullptr : &head.origin);
      co_return std::move(*refused);
    }
    const auto deadline = SteadyClock::now() + hub_.options.answer_timeout;
    ChunkRegistry::Claim claim;
    if (head.named) claim = hub_.services.chunks->claim(head.origin, wakeup_);
    while (claim.state == ChunkRegistry::Claim::State::busy) {
      // It waits without a place, which others could use.
      if (hub_.over || SteadyClock::now() >= deadline || !request.may_wait()) {
        Answer answer =
            refusal(503, "the same chunk is under way in another connection", head.origin.chunk);
        hub_.record(answer, nullptr, peer_, &head.origin);
        co_return answer;
      }
      constexpr std::chrono::milliseconds kStep{200};
      co_await pause(SteadyClock::now() + kStep);
      claim = hub_.services.chunks->claim(head.origin, wakeup_);
    }
    if (claim.state == ChunkRegistry::Claim::State::finished) {
      Answer answer = answer_duplicate(
          head.origin, claim.counts,
          length.known ? std::optional<std::uint64_t>(length.bytes) : std::nullopt);
      hub_.record(answer, nullptr, peer_, &head.origin);
      co_return answer;
    }
    if (!co_await place_for(request)) {
      hub_.services.chunks->release(head.origin, claim.ticket);
      Answer answer = refusal(429, "too many uploads are under way", head.origin.chunk);
      hub_.record(answer, nullptr, peer_, &head.origin);
      co_return answer;
    }
    const std::shared_ptr<Upload> taken = begin(head, claim.ticket);
    if (!taken) {
      Answer answer = refusal(503, "out of threads or memory", head.origin.chunk);
      hub_.record(answer, nullptr, peer_, &head.origin);
      co_return answer;
    }
    // If this coroutine ends before its time, with the server, nobody writes the body any more.
    struct GiveUp {
      std::shared_ptr<Upload> upload;
      ~GiveUp() { upload->give_up(UploadError(Ending::cut, "the connection ended"), false); }
    } const give_up{taken};
    co_await receive(parser, *taken);
    const UploadResult result = co_await wait_for_result(*taken);
    Answer answer = answer_to(head.origin, result);
    hub_.record(answer, &result, peer_, &head.origin);
    co_return answer;
  }

  /// False: every place is taken, by uploads that are fast enough.
  asio::awaitable<bool> place_for(Hub::Request& request) {
    if (request.take_place()) co_return true;
    if (!hub_.connections.push_out_for(line_)) co_return false;
    // Until the other one has been answered.
    const auto deadline = SteadyClock::now() + std::chrono::seconds(1);
    while (!request.take_place()) {
      if (SteadyClock::now() >= deadline) co_return false;
      constexpr std::chrono::milliseconds kStep{20};
      co_await pause(SteadyClock::now() + kStep);
    }
    co_return true;
  }

  /// Null if the system lacks what is needed; the claim is given back then.
  std::shared_ptr<Upload> begin(const UploadHead& head, std::uint64_t ticket) {
    try {
      auto upload = std::make_shared<Upload>(head.origin, ticket, head.packing,
                                             hub_.upload_settings(), hub_.services, wakeup_);
      hub_.watch(upload);
      hub_.parsers.start([upload] { upload->parse(); });
      return upload;
    } catch (const std::exception&) {
      hub_.services.chunks->release(head.origin, ticket);
      return nullptr;
    }
  }

  /// Moves the body into the upload's pipe until it ends, fails or is no longer wanted.
  asio::awaitable<void> receive(Parser& parser, Upload& upload) {
    error_code error;
    if (continue_asked_ && !parser.is_done()) {
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      continue_asked_ = false;
      expire(hub_.options.header_timeout);
      co_await asio::async_write(stream_, asio::buffer(kContinue),
                                 asio::redirect_error(asio::use_awaitable, error));
    }
    parser.body_limit(hub_.options.max_body.bytes);
    Pace pace(hub_.options.body_timeout, hub_.options.min_rate.bytes);
    std::vector<std::byte> block;
    std::size_t filled = 0;
    line_.begin_body();
    while (!parser.is_done()) {
      if (!co_await room(upload, pace)) co_return;
      if (block.empty()) block.resize(block_size(parser));
      auto& body = parser.get().body();
      body.data = block.data() + filled;
      body.size = block.size() - filled;
      body.more = true;
      beast::get_lowest_layer(stream_).expires_at(pace.deadline());
      line_.reading(true);
      if (!error && line_.pushed_out()) error = asio::error::operation_aborted;
      if (!error) {
        co_await http::async_read_some(stream_, buffer_, parser,
                                       asio::redirect_error(asio::use_awaitable, error));
      }
      line_.reading(false);
      const std::size_t got = block.size() - filled - body.size;
      filled += got;
      pace.received(got);
      line_.received(got);
      if (error == http::error::need_buffer) error = {};
      if (filled == block.size()) {
        upload.body().write(std::exchange(block, {}));
        filled = 0;
      }
      if (error) {
        upload.give_up(body_error(error), false);
        co_return;
      }
    }
    block.resize(filled);
    upload.body().write(std::move(block));
    upload.body().end();
  }

  static std::size_t block_size(const Parser& parser) {
    const auto left = parser.content_length_remaining();
    return left ? static_cast<std::size_t>(std::clamp<std::uint64_t>(*left, 1, kBlock)) : kBlock;
  }

  UploadError body_error(const error_code& error) const {
    if (error == http::error::body_limit) {
      return {Ending::too_large,
              fmt::format("the body is larger than {} bytes", hub_.options.max_body.bytes)};
    }
    if (line_.pushed_out()) {
      return {Ending::cut, "the body came too slowly, and another upload needed its place"};
    }
    if (error == beast::error::timeout) return {Ending::cut, "the body came too slowly"};
    if (error == http::error::partial_message || error == http::error::end_of_stream ||
        error.category() != http::make_error_code(http::error::bad_method).category()) {
      return {Ending::cut, fmt::format("the connection broke: {}", error.message())};
    }
    return {Ending::bad, fmt::format("the transfer encoding is damaged: {}", error.message())};
  }

  /// Waits until the pipe has room. False: the body is no longer wanted.
  asio::awaitable<bool> room(Upload& upload, Pace& pace) {
    const auto since = SteadyClock::now();
    const auto deadline = since + hub_.options.answer_timeout;
    while (!upload.result() && !upload.body().has_room()) {
      if (SteadyClock::now() >= deadline) {
        upload.give_up(UploadError(Ending::unavailable, kTooLate), true);
        break;
      }
      co_await pause(deadline);
    }
    pace.excuse(SteadyClock::now() - since);
    line_.excuse(SteadyClock::now() - since);
    co_return !upload.result() && !upload.body().failed();
  }

  asio::awaitable<UploadResult> wait_for_result(Upload& upload) {
    const auto deadline = SteadyClock::now() + hub_.options.answer_timeout;
    while (true) {
      if (std::optional<UploadResult> result = upload.result()) co_return std::move(*result);
      if (SteadyClock::now() >= deadline) {
        upload.give_up(UploadError(Ending::unavailable, kTooLate), true);
      } else {
        co_await pause(deadline);
      }
    }
  }

  /// Until then or until woken. What is waited for must be looked at before and after.
  asio::awaitable<void> pause(SteadyClock::time_point until) {
    error_code ignored;
    timer_->expires_at(until);
    co_await timer_->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  /// Writes the answer, gives the place back and sees to what is left of the body. False: the
  /// connection ends.
  asio::awaitable<bool> finish(Parser& parser, const Answer& answer,
                               std::optional<Hub::Request>* request) {
    const unsigned version = parser.get().version();
    bool keep = parser.keep_alive() && !answer.close;
    const bool unread = !parser.is_done();
    if (unread && keep) {
      const auto left = parser.content_length_remaining();
      keep = !continue_asked_ && left && *left <= kMostDiscarded && co_await discard(parser);
    }
    const bool written = co_await write(answer, version, keep);
    if (request != nullptr) request->reset();
    if (!written) co_return false;
    // A stranger is not waited for as long.
    const bool stranger =
        answer.count == UploadCount::none || answer.count == UploadCount::unauthorized;
    if (!keep && unread) {
      co_await linger(stranger ? kMostDiscarded : hub_.options.max_body.bytes);
    }
    co_return keep;
  }

  /// Reads the body to its end. False: it did not come.
  asio::awaitable<bool> discard(Parser& parser) {
    std::vector<char> scrap(kBlock);
    parser.body_limit(kNoLimit);
    expire(hub_.options.header_timeout);
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = scrap.data();
      body.size = scrap.size();
      body.more = true;
      error_code error;
      co_await http::async_read_some(stream_, buffer_, parser,
                                     asio::redirect_error(asio::use_awaitable, error));
      if (error && error != http::error::need_buffer) co_return false;
    }
    co_return true;
  }

  asio::awaitable<bool> write(const Answer& answer, unsigned version, bool keep) {
    http::response<http::string_body> response{http::int_to_status(answer.status), version};
    response.set(http::field::content_type, "application/json");
    if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
    if (answer.retry_later) response.set(http::field::retry_after, "1");
    if (answer.challenge) response.set(http::field::www_authenticate, "Bearer");
    response.keep_alive(keep);
    response.body() = answer.json + "\n";
    response.prepare_payload();
    expire(hub_.options.header_timeout);
    error_code error;
    co_await http::async_write(stream_, response, asio::redirect_error(asio::use_awaitable, error));
    co_return !error;
  }

  /// Closing while the client still sends would throw the answer away that is on its way to it, and
  /// it would try again for ever. So a body that is not wanted is taken too, and thrown away.
  asio::awaitable<void> linger(std::uint64_t left) {
    error_code error;
    if constexpr (std::is_same_v<Stream, beast::tcp_stream>) {
      stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
    }
    std::vector<char> scrap(kBlock);
    Pace pace(hub_.options.body_timeout, hub_.options.min_rate.bytes);
    while (!error && left != 0) {
      beast::get_lowest_layer(stream_).expires_at(pace.deadline());
      const std::size_t got = co_await stream_.async_read_some(
          asio::buffer(scrap), asio::redirect_error(asio::use_awaitable, error));
      pace.received(got);
      left -= std::min<std::uint64_t>(left, got);
    }
  }

  static constexpr const char* kTooLate = "the packets were not delivered in time";

  Hub& hub_;
  Connections::Line& line_;
  Stream& stream_;
  const std::string peer_;
  const std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>(hub_.door);
  const std::shared_ptr<asio::steady_timer> timer_;
  beast::flat_buffer buffer_{kBlock};
  bool continue_asked_ = false;
  bool first_ = true;
};

/// There is no room for this connection. With TLS there is nothing that could be said in time.
asio::awaitable<void> turn_away(Hub& hub, bool tls, beast::tcp_stream& stream,
                                const std::string& peer) {
  struct Told {
    Hub& hub;
    bool first;
    ~Told() { --hub.turned_away; }
  };
  constexpr std::uint32_t kMostTold = 64;
  const Told told{hub, ++hub.turned_away <= kMostTold};
  Answer answer = refusal(503, "too many connections");
  hub.record(answer, nullptr, peer, nullptr);
  if (tls || !told.first) co_return;
  const std::string text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
      "Connection: close\r\nContent-Length: {}\r\n\r\n{}\n",
      answer.json.size() + 1, answer.json);
  error_code error;
  stream.expires_after(std::chrono::seconds(1));
  co_await asio::async_write(stream, asio::buffer(text),
                             asio::redirect_error(asio::use_awaitable, error));
  stream.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  // Closing at once, with its request unread, would throw the answer away.
  std::vector<char> scrap(4096);
  while (!error) {
    co_await stream.async_read_some(asio::buffer(scrap),
                                    asio::redirect_error(asio::use_awaitable, error));
  }
}

}  // namespace

asio::awaitable<void> serve(Hub& hub, asio::ssl::context* tls, asio::ip::tcp::socket socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  const std::string peer = error ? "?" : endpoint.address().to_string();
  socket.set_option(asio::ip::tcp::no_delay(true), error);
  // What interrupts it may be posted late, and keeps only this. All on the socket's strand.
  const auto reach = std::make_shared<beast::tcp_stream*>(nullptr);
  struct OutOfReach {
    std::shared_ptr<beast::tcp_stream*> reach;
    ~OutOfReach() { *reach = nullptr; }
  };
  const auto executor = socket.get_executor();
  const std::shared_ptr<Connections::Line> line =
      hub.connections.admit(error ? peer : Connections::network(endpoint.address()),
                            [executor, reach](Connections::Interrupt what) {
                              asio::post(executor, [reach, what] {
                                if (*reach == nullptr) return;
                                if (what == Connections::Interrupt::close) {
                                  (*reach)->close();
                                } else {
                                  (*reach)->cancel();
                                }
                              });
                            });
  beast::tcp_stream plain(std::move(socket));
  if (!line) {
    co_await turn_away(hub, tls != nullptr, plain, peer);
    co_return;
  }
  struct Leave {
    Hub& hub;
    Connections::Line& line;
    ~Leave() { hub.connections.leave(line); }
  } const leave{hub, *line};
  if (tls == nullptr) {
    *reach = &plain;
    const OutOfReach out_of_reach{reach};
    Connection<beast::tcp_stream> connection(hub, *line, plain, peer);
    co_await connection.run();
    co_return;
  }
  beast::ssl_stream<beast::tcp_stream> stream(std::move(plain), *tls);
  *reach = &beast::get_lowest_layer(stream);
  const OutOfReach out_of_reach{reach};
  beast::get_lowest_layer(stream).expires_after(hub.options.header_timeout);
  co_await stream.async_handshake(asio::ssl::stream_base::server,
                                  asio::redirect_error(asio::use_awaitable, error));
  if (error) {
    if (error != asio::error::eof && error != asio::error::connection_reset &&
        error != beast::error::timeout && error != asio::error::operation_aborted) {
      hub.warn(fmt::format("TLS with {} failed: {}", peer, error.message()));
    }
    co_return;
  }
  {
    Connection<beast::ssl_stream<beast::tcp_stream>> connection(hub, *line, stream, peer);
    co_await connection.run();
  }
  constexpr std::chrono::seconds kGoodbye{2};
  beast::get_lowest_layer(stream).expires_after(kGoodbye);
  co_await stream.async_shutdown(asio::redirect_error(asio::use_awaitable, error));
}

}  // namespace millrace
