#include "binlog_stream.h"

#include <chrono>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <sys/socket.h>

namespace millrace {

namespace {

constexpr int kLost = 2013;
constexpr int kFatalReadError = 1236;
constexpr int kTlsError = 2026;

const char* text_or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

void set_up_tls(MYSQL* mysql, const ConnectionOptions& server) {
  my_bool enforce = server.tls != Tls::off ? 1 : 0;
  my_bool verify = server.tls == Tls::verify ? 1 : 0;
  ::mysql_optionsv(mysql, MYSQL_OPT_SSL_ENFORCE, &enforce);
  ::mysql_optionsv(mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
  if (server.tls == Tls::off) return;
  ::mysql_ssl_set(mysql, text_or_null(server.tls_key), text_or_null(server.tls_cert),
                  text_or_null(server.tls_ca), nullptr, nullptr);
}

}  // namespace

BinlogStream::BinlogStream(StreamOptions options)
    : options_(std::move(options)), name_(to_string(options_.server.address)) {}

void BinlogStream::open(const std::optional<GtidPosition>& from) {
  close();
  connect();
  run("SET @mariadb_slave_capability = 4");  // as a replica that knows GTIDs
  run("SET @master_binlog_checksum = @@global.binlog_checksum");
  run(fmt::format(
      "SET @master_heartbeat_period = {}",
      std::chrono::duration_cast<std::chrono::nanoseconds>(options_.heartbeat).count()));
  if (from) {
    run(fmt::format("SET @slave_connect_state = '{}', @slave_gtid_strict_mode = 0",
                    from->to_string()));
  }
  rpl_.reset(::mariadb_rpl_init(mysql_.get()));
  constexpr unsigned long kFirst = 4;  // behind a file's magic number
  constexpr std::uint32_t kOn = 1;
  ::mariadb_rpl_optionsv(rpl_.get(), MARIADB_RPL_SERVER_ID, options_.server_id);
  ::mariadb_rpl_optionsv(rpl_.get(), MARIADB_RPL_START, kFirst);
  ::mariadb_rpl_optionsv(rpl_.get(), MARIADB_RPL_VERIFY_CHECKSUM, kOn);
  ::mariadb_rpl_optionsv(rpl_.get(), MARIADB_RPL_UNCOMPRESS, kOn);
  if (::mariadb_rpl_open(rpl_.get()) != 0) fail();
  // What the server has against it comes in place of the first event, the name of a file.
  fetch();
}

void BinlogStream::connect() {
  const ConnectionOptions& server = options_.server;
  mysql_.reset(::mysql_init(nullptr));
  if (!mysql_) fail("no memory", 0, false);
  const auto connect_timeout = static_cast<unsigned>(seconds(server.connect_timeout));
  const auto write_timeout = static_cast<unsigned>(seconds(server.write_timeout));
  constexpr int kBeats = 3;
  const auto read_timeout = static_cast<unsigned>(seconds(kBeats * options_.heartbeat));
  ::mysql_optionsv(mysql_.get(), MYSQL_OPT_CONNECT_TIMEOUT, &connect_timeout);
  ::mysql_optionsv(mysql_.get(), MYSQL_OPT_READ_TIMEOUT, &read_timeout);
  ::mysql_optionsv(mysql_.get(), MYSQL_OPT_WRITE_TIMEOUT, &write_timeout);
  ::mysql_optionsv(mysql_.get(), MYSQL_SET_CHARSET_NAME, "utf8mb4");
  set_up_tls(mysql_.get(), server);
  const ServerAddress& address = server.address;
  const bool is_local = !address.socket.empty();
  // By itself the library takes a host called localhost for a socket.
  const unsigned protocol = is_local ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
  ::mysql_optionsv(mysql_.get(), MYSQL_OPT_PROTOCOL, &protocol);
  if (::mysql_real_connect(mysql_.get(), is_local ? nullptr : address.host.c_str(),
                           address.user.c_str(), address.password.c_str(), address.database.c_str(),
                           is_local ? 0 : address.port, text_or_null(address.socket),
                           0) == nullptr) {
    fail();
  }
  if (server.tls != Tls::off && ::mysql_get_ssl_cipher(mysql_.get()) == nullptr) {
    fail("the connection is not encrypted", kTlsError, true);
  }
  const std::lock_guard lock(mutex_);
  socket_ = static_cast<int>(::mysql_get_socket(mysql_.get()));
  if (interrupted_) ::shutdown(socket_, SHUT_RDWR);
}

void BinlogStream::close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    socket_ = -1;
  }
  event_.reset();
  rpl_.reset();
  mysql_.reset();
}

void BinlogStream::interrupt() noexcept {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
}

const MARIADB_RPL_EVENT* BinlogStream::fetch() {
  event_.reset(::mariadb_rpl_fetch(rpl_.get(), nullptr));
  if (event_) return event_.get();
  if (::mysql_errno(mysql_.get()) != 0) fail();
  if (::mariadb_rpl_errno(rpl_.get()) == 0) {
    fail("the server has ended the connection", kLost, true);
  }
  // An event was taken from the connection all the same, so the next one can be read.
  problem_ = ::mariadb_rpl_error(rpl_.get());
  rpl_->error_no = 0;
  return nullptr;
}

void BinlogStream::run(const std::string& sql) {
  if (::mysql_real_query(mysql_.get(), sql.data(), sql.size()) != 0) fail();
}

void BinlogStream::fail() {
  const auto code = static_cast<int>(::mysql_errno(mysql_.get()));
  const std::string text = code != 0 ? ::mysql_error(mysql_.get())
                           : rpl_    ? ::mariadb_rpl_error(rpl_.get())
                                     : "failed";
  const bool passes = passing_error(code, ::mysql_sqlstate(mysql_.get()));
  if (code == kFatalReadError && text.find("GTID") != std::string::npos) {
    close();
    throw PositionLost(fmt::format("{}: {} (error {})", name_, text, code), code, true);
  }
  fail(text, code, passes);
}

void BinlogStream::fail(const std::string& what, int code, bool passes) {
  close();
  throw ServerError(fmt::format("{}: {} (error {})", name_, what, code), code, passes);
}

}  // namespace millrace
