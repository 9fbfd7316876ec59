#include "session.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <fmt/format.h>
#include <openssl/ssl.h>

#include "rabbit_url.h"
#include "tcp.h"

namespace millrace {

namespace {

constexpr amqp_channel_t kChannel = 1;
constexpr int kFrameMax = 131072;

amqp_bytes_t bytes_of(std::string_view text) {
  return {text.size(), const_cast<char*>(text.data())};  // the library only reads
}

std::string text_of(const amqp_bytes_t& bytes) {
  return {static_cast<const char*>(bytes.bytes), bytes.len};
}

timeval time_of(Duration duration) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  constexpr std::int64_t kMicros = 1000000;
  return {static_cast<time_t>(micros / kMicros), static_cast<suseconds_t>(micros % kMicros)};
}

/// An argument table whose strings are those of `arguments`.
class Table {
 public:
  explicit Table(const std::vector<AmqpSession::Argument>& arguments) {
    for (const auto& argument : arguments) {
      amqp_table_entry_t entry{};
      entry.key = bytes_of(argument.name);
      if (argument.text.empty()) {
        entry.value.kind = AMQP_FIELD_KIND_I64;
        entry.value.value.i64 = argument.number;
      } else {
        entry.value.kind = AMQP_FIELD_KIND_UTF8;
        entry.value.value.bytes = bytes_of(argument.text);
      }
      entries_.push_back(entry);
    }
  }
  [[nodiscard]] amqp_table_t get() { return {static_cast<int>(entries_.size()), entries_.data()}; }

 private:
  std::vector<amqp_table_entry_t> entries_;
};

/// What we can take from the broker beyond the plain protocol; it sends neither basic.cancel nor
/// connection.blocked to a client that does not announce them. The library adds what it can do
/// itself.
class Capabilities {
 public:
  Capabilities() {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      entries_[i].key = bytes_of(kNames[i]);
      entries_[i].value.kind = AMQP_FIELD_KIND_BOOLEAN;
      entries_[i].value.value.boolean = 1;
    }
    property_.key = bytes_of("capabilities");
    property_.value.kind = AMQP_FIELD_KIND_TABLE;
    property_.value.value.table = {static_cast<int>(entries_.size()), entries_.data()};
  }
  Capabilities(const Capabilities&) = delete;
  Capabilities& operator=(const Capabilities&) = delete;
  ~Capabilities() = default;
  [[nodiscard]] amqp_table_t get() { return {1, &property_}; }

 private:
  static constexpr std::array<std::string_view, 6> kNames = {
      "authentication_failure_close", "basic.nack",         "connection.blocked",
      "consumer_cancel_notify",       "publisher_confirms", "exchange_exchange_bindings"};

  std::array<amqp_table_entry_t, kNames.size()> entries_{};
  amqp_table_entry_t property_{};
};

/// The time in x-death, the broker's list of what moved a message; 0 if there is none.
std::int64_t died_at(const amqp_field_value_t& deaths) {
  if (deaths.kind != AMQP_FIELD_KIND_ARRAY || deaths.value.array.num_entries == 0) return 0;
  const amqp_field_value_t& last = deaths.value.array.entries[0];
  if (last.kind != AMQP_FIELD_KIND_TABLE) return 0;
  for (int i = 0; i < last.value.table.num_entries; ++i) {
    const amqp_table_entry_t& entry = last.value.table.entries[i];
    if (text_of(entry.key) == "time" && entry.value.kind == AMQP_FIELD_KIND_TIMESTAMP) {
      return static_cast<std::int64_t>(entry.value.value.u64);
    }
  }
  return 0;
}

std::string refusal(const amqp_rpc_reply_t& reply, int& code) {
  if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
    const auto* close = static_cast<const amqp_connection_close_t*>(reply.reply.decoded);
    code = close->reply_code;
    return text_of(close->reply_text);
  }
  if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
    const auto* close = static_cast<const amqp_channel_close_t*>(reply.reply.decoded);
    code = close->reply_code;
    return text_of(close->reply_text);
  }
  return fmt::format("method {:#x}", reply.reply.id);
}

amqp_socket_t* make_socket(amqp_connection_state_t state, const RabbitUrl& url,
                           const RabbitOptions& options) {
  if (!url.tls) return amqp_tcp_socket_new(state);
  amqp_socket_t* socket = amqp_ssl_socket_new(state);
  if (socket == nullptr) return nullptr;
  amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST);
  amqp_ssl_socket_set_verify_peer(socket, options.verify ? 1 : 0);
  amqp_ssl_socket_set_verify_hostname(socket, options.verify ? 1 : 0);
  if (options.ca.empty()) {
    // The library trusts nobody by itself.
    SSL_CTX_set_default_verify_paths(static_cast<SSL_CTX*>(amqp_ssl_socket_get_context(socket)));
  } else if (amqp_ssl_socket_set_cacert(socket, options.ca.c_str()) != 0) {
    throw Misconfigured("ca", fmt::format("cannot use the CA file '{}'", options.ca));
  }
  if (!options.certificate.empty() &&
      amqp_ssl_socket_set_key(socket, options.certificate.c_str(), options.key.c_str()) != 0) {
    throw Misconfigured("certificate", fmt::format("cannot use the certificate '{}' with the key "
                                                   "'{}'",
                                                   options.certificate, options.key));
  }
  return socket;
}

/// Why no connection can be made. The library drops the system's error, so it is asked for again.
std::string why_not(int status, const RabbitUrl& url, Duration timeout) {
  if (status == AMQP_STATUS_SOCKET_ERROR) {
    try {
      (void)connect_tcp(url.host, url.port, timeout);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }
  return amqp_error_string2(status);
}

/// Connects. A certificate that is not to be trusted does not become better by waiting.
void connect(amqp_socket_t* socket, const RabbitUrl& url, Duration timeout,
             const std::string& place) {
  const timeval time = time_of(timeout);
  const int status = amqp_socket_open_noblock(socket, url.host.c_str(), url.port, &time);
  if (status == AMQP_STATUS_OK) return;
  if (status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED) {
    throw Misconfigured("ca", fmt::format("the certificate of {} is signed by nobody that is "
                                          "trusted here",
                                          place));
  }
  if (status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED) {
    throw Misconfigured(
        "server", fmt::format("the certificate of {} is not for the host '{}'", place, url.host));
  }
  throw LinkLost(fmt::format("cannot connect to {}: {}", place, why_not(status, url, timeout)));
}

}  // namespace

AmqpSession::AmqpSession(const RabbitOptions& options) : state_(amqp_new_connection()) {
  const RabbitUrl url = parse_rabbit_url(options.server);
  amqp_socket_t* socket = state_ ? make_socket(state_.get(), url, options) : nullptr;
  if (socket == nullptr) throw LinkLost("out of memory");
  const std::string place = fmt::format("{}:{}", url.host, url.port);
  connect(socket, url, options.timeout, place);
  timeval timeout = time_of(options.timeout);
  amqp_set_handshake_timeout(state_.get(), &timeout);
  amqp_set_rpc_timeout(state_.get(), &timeout);
  const auto heartbeat = std::chrono::ceil<std::chrono::seconds>(options.heartbeat);
  Capabilities capabilities;
  const amqp_table_t properties = capabilities.get();
  const amqp_rpc_reply_t reply = amqp_login_with_properties(
      state_.get(), url.vhost.c_str(), 0, kFrameMax, static_cast<int>(heartbeat.count()),
      &properties, AMQP_SASL_METHOD_PLAIN, url.user.c_str(), url.password.c_str());
  if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
    int code = 0;
    const std::string text = refusal(reply, code);
    throw Refused(code, fmt::format("{} refuses the user '{}' in the vhost '{}': {}", place,
                                    url.user, url.vhost, text));
  }
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
    throw LinkLost(
        fmt::format("{} does not let us in: {}", place, amqp_error_string2(reply.library_error)));
  }
  amqp_channel_open(state_.get(), kChannel);
  check_reply("opening a channel");
  amqp_confirm_select(state_.get(), kChannel);
  check_reply("asking for confirms");
}

AmqpSession::~AmqpSession() = default;

void AmqpSession::close() noexcept {
  timeval timeout{1, 0};
  amqp_set_rpc_timeout(state_.get(), &timeout);
  amqp_connection_close(state_.get(), AMQP_REPLY_SUCCESS);
}

int AmqpSession::descriptor() const { return amqp_get_sockfd(state_.get()); }

void AmqpSession::check(int status, const char* doing) const {
  if (status < 0) {
    throw LinkLost(
        fmt::format("the connection broke while {}: {}", doing, amqp_error_string2(status)));
  }
}

void AmqpSession::check_reply(const char* doing) const {
  const amqp_rpc_reply_t reply = amqp_get_rpc_reply(state_.get());
  if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
  if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
    int code = 0;
    const std::string text = refusal(reply, code);
    throw Refused(code, text);
  }
  throw LinkLost(fmt::format("the connection broke while {}: {}", doing,
                             amqp_error_string2(reply.library_error)));
}

std::uint32_t AmqpSession::declare_queue(const std::string& name,
                                         const std::vector<Argument>& arguments) {
  Table table(arguments);
  const amqp_queue_declare_ok_t* declared =
      amqp_queue_declare(state_.get(), kChannel, bytes_of(name), 0, 1, 0, 0, table.get());
  check_reply("declaring a queue");
  return declared->consumer_count;
}

void AmqpSession::declare_temporary_queue(const std::string& name,
                                          const std::vector<Argument>& arguments) {
  Table table(arguments);
  amqp_queue_declare(state_.get(), kChannel, bytes_of(name), 0, 0, 1, 1, table.get());
  check_reply("declaring a temporary queue");
}

void AmqpSession::declare_exchange(const std::string& name, const std::string& type,
                                   const std::vector<Argument>& arguments) {
  Table table(arguments);
  amqp_exchange_declare(state_.get(), kChannel, bytes_of(name), bytes_of(type), 0, 1, 0, 0,
                        table.get());
  check_reply("declaring an exchange");
}

void AmqpSession::bind(const std::string& queue, const std::string& exchange,
                       const std::string& key) {
  amqp_queue_bind(state_.get(), kChannel, bytes_of(queue), bytes_of(exchange), bytes_of(key),
                  amqp_empty_table);
  check_reply("binding a queue");
}

void AmqpSession::consume(const std::string& queue, std::uint16_t prefetch) {
  amqp_basic_qos(state_.get(), kChannel, 0, prefetch, 0);
  check_reply("setting the prefetch");
  amqp_basic_consume(state_.get(), kChannel, bytes_of(queue), bytes_of(queue), 0, 0, 0,
                     amqp_empty_table);
  check_reply("starting to consume");
}

void AmqpSession::cancel(const std::string& queue) {
  // Deliveries may come before the answer, so it is not waited for.
  amqp_basic_cancel_t request{};
  request.consumer_tag = bytes_of(queue);
  request.nowait = 1;
  check(amqp_send_method(state_.get(), kChannel, AMQP_BASIC_CANCEL_METHOD, &request),
        "ending the consumer");
}

std::uint64_t AmqpSession::publish(const std::string& exchange, const std::string& key,
                                   std::string_view body, const std::vector<Argument>& headers,
                                   Unroutable unroutable) {
  Table table(headers);
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG;
  properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  properties.content_type = bytes_of("application/x-millrace-tickets");
  if (!headers.empty()) {
    properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    properties.headers = table.get();
  }
  const amqp_boolean_t mandatory = unroutable == Unroutable::comes_back ? 1 : 0;
  check(amqp_basic_publish(state_.get(), kChannel, bytes_of(exchange), bytes_of(key), mandatory, 0,
                           &properties, bytes_of(body)),
        "publishing");
  return ++published_;
}

void AmqpSession::acknowledge(std::uint64_t tag) {
  check(amqp_basic_ack(state_.get(), kChannel, tag, 0), "acknowledging");
}

void AmqpSession::give_back(std::uint64_t tag) {
  check(amqp_basic_nack(state_.get(), kChannel, tag, 0, 1), "giving a message back");
}

AmqpSession::Event AmqpSession::next() {
  while (true) {
    amqp_maybe_release_buffers(state_.get());
    amqp_frame_t frame{};
    const timeval now{0, 0};
    const int status = amqp_simple_wait_frame_noblock(state_.get(), &frame, &now);
    if (status == AMQP_STATUS_TIMEOUT) return {};
    check(status, "waiting");
    if (frame.frame_type != AMQP_FRAME_METHOD) continue;
    Event event = event_of(frame.payload.method);
    if (event.kind != Event::Kind::none) return event;
  }
}

AmqpSession::Event AmqpSession::event_of(const amqp_method_t& method) {
  Event event;
  switch (method.id) {
    case AMQP_BASIC_ACK_METHOD: {
      const auto* ack = static_cast<const amqp_basic_ack_t*>(method.decoded);
      event.kind = Event::Kind::confirmed;
      event.tag = ack->delivery_tag;
      event.multiple = ack->multiple != 0;
      return event;
    }
    case AMQP_BASIC_NACK_METHOD: {
      const auto* nack = static_cast<const amqp_basic_nack_t*>(method.decoded);
      event.kind = Event::Kind::refused;
      event.tag = nack->delivery_tag;
      event.multiple = nack->multiple != 0;
      return event;
    }
    case AMQP_BASIC_DELIVER_METHOD:
      return delivery(*static_cast<const amqp_basic_deliver_t*>(method.decoded));
    case AMQP_BASIC_RETURN_METHOD: {
      const auto* back = static_cast<const amqp_basic_return_t*>(method.decoded);
      // Its queue is gone; a new connection declares it again.
      throw LinkLost(
          fmt::format("the broker has no queue for a message: {}", text_of(back->reply_text)));
    }
    case AMQP_CONNECTION_BLOCKED_METHOD:
      event.kind = Event::Kind::blocked;
      event.text = text_of(static_cast<const amqp_connection_blocked_t*>(method.decoded)->reason);
      return event;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
      event.kind = Event::Kind::unblocked;
      return event;
    case AMQP_BASIC_CANCEL_METHOD:
      event.kind = Event::Kind::cancelled;
      event.text = text_of(static_cast<const amqp_basic_cancel_t*>(method.decoded)->consumer_tag);
      return event;
    case AMQP_CHANNEL_CLOSE_METHOD:
    case AMQP_CONNECTION_CLOSE_METHOD:
      closed(method);
    default:
      return event;
  }
}

void AmqpSession::closed(const amqp_method_t& method) const {
  if (method.id == AMQP_CHANNEL_CLOSE_METHOD) {
    const auto* close = static_cast<const amqp_channel_close_t*>(method.decoded);
    throw Refused(close->reply_code, text_of(close->reply_text));
  }
  const auto* close = static_cast<const amqp_connection_close_t*>(method.decoded);
  throw Refused(close->reply_code, text_of(close->reply_text));
}

AmqpSession::Event AmqpSession::delivery(const amqp_basic_deliver_t& method) {
  Event event;
  event.kind = Event::Kind::delivered;
  event.tag = method.delivery_tag;
  amqp_message_t message;
  const amqp_rpc_reply_t reply = amqp_read_message(state_.get(), kChannel, &message, 0);
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
    throw LinkLost(fmt::format("the connection broke inside a message: {}",
                               amqp_error_string2(reply.library_error)));
  }
  struct Free {
    void operator()(amqp_message_t* read) const { amqp_destroy_message(read); }
  };
  const std::unique_ptr<amqp_message_t, Free> freed(&message);
  event.body = text_of(message.body);
  if ((message.properties._flags & AMQP_BASIC_HEADERS_FLAG) != 0) {
    const amqp_table_t& headers = message.properties.headers;
    for (int i = 0; i < headers.num_entries; ++i) {
      const amqp_table_entry_t& entry = headers.entries[i];
      if (text_of(entry.key) == "x-death") event.died_at = died_at(entry.value);
      if (entry.value.kind != AMQP_FIELD_KIND_I64) continue;
      const std::int64_t value = entry.value.value.i64;
      const std::string name = text_of(entry.key);
      if (name == kAttempts) {
        event.attempts = static_cast<std::uint32_t>(std::clamp<std::int64_t>(value, 0, UINT32_MAX));
      } else if (name == kDue) {
        event.due_ms = value;
      } else if (name == kHold) {
        event.hold_ms = value;
      }
    }
  }
  return event;
}

}  // namespace millrace
