#include "source_binlog.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

#include "server_options.h"

namespace millrace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTurn{100};

}  // namespace

void check_binlog_options(const BinlogOptions& options, Findings& findings) {
  check_server_options(server_options(options), findings);
  for (const std::string& table : options.tables) {
    const std::size_t dot = table.find('.');
    if (dot == std::string::npos || dot == 0 || dot + 1 == table.size()) {
      findings.add("tables", fmt::format("'{}' is not of the form database.table", table));
    }
  }
  if (options.state.empty()) findings.add("state", "expected the path of a file");
}

void SourceBinlog::open(Context& context) {
  context_ = &context;
  again_ = &context.counter("read-again");
  server_ = connection_options(server_options(options_));
  server_.connect_timeout = server_.read_timeout = server_.write_timeout = options_.connect_timeout;
  check_state();
  delivered_ = state_.read();
  const bool first = !delivered_;
  reader_ = std::make_unique<BinlogReader>(options_, server_, context);
  try {
    connect_first(context, server_options(options_), options_.wait, [this] {
      check_server();
      reader_->connect(delivered_);
    });
  } catch (...) {
    reader_.reset();
    throw;
  }
  if (reader_->position() != delivered_) {
    // A start that ends before the first change must not be taken for none.
    delivered_ = reader_->position();
    if (delivered_) state_.write(*delivered_);
  }
  context.info(fmt::format(
      "reads the binary log of {} {}", to_string(server_.address),
      delivered_ ? fmt::format("behind {}{}", delivered_->to_string(), first ? ", its end" : "")
                 : std::string("from its oldest file on")));
  new_window();
}

void SourceBinlog::check_state() const {
  const std::filesystem::path path = state_.path();
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    const std::error_code error(errno, std::system_category());
    throw ConfigError("state",
                      fmt::format("cannot write to '{}': {}", folder.string(), error.message()));
  }
}

void SourceBinlog::check_server() const {
  Connection connection;
  connection.open(server_);
  const auto variable = [&connection](const std::string& name) {
    const auto rows = connection.query("SHOW GLOBAL VARIABLES LIKE '" + name + "'");
    return rows.empty() ? std::string() : rows[0].at(1).value_or("");
  };
  const auto refuse = [this](const std::string& what) {
    throw ConfigError("server", fmt::format("{}: {}", to_string(server_.address), what));
  };
  if (variable("version").find("MariaDB") == std::string::npos) {
    refuse(
        "it is no MariaDB; the GTIDs of MySQL are not supported, source-canal reads its changes");
  }
  if (variable("log_bin") != "ON") refuse("it has no binary log; set log_bin");
  const std::string format = variable("binlog_format");
  if (format != "ROW") {
    refuse(fmt::format(
        "binlog_format is {}, so the log does not tell rows; set binlog_format = ROW", format));
  }
  const std::string image = variable("binlog_row_image");
  if (!image.starts_with("FULL")) {
    refuse(
        fmt::format("binlog_row_image is {}, so the log does not tell whole rows; set "
                    "binlog_row_image = FULL",
                    image));
  }
}

void SourceBinlog::new_window() {
  committed_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  window_.emplace(options_.window,
                  [committed = committed_](std::uint64_t position) { *committed = position; });
  number_ = 0;
  marks_.clear();
  behind_.reset();
}

void SourceBinlog::run(Output<Change>& out, std::stop_token stop) {
  reader_->start(delivered_);
  std::exception_ptr failure;
  try {
    while (!stop.stop_requested()) {
      if (window_->failed()) read_again(out, stop);
      settle_behind();
      commit_what_is_due(false);
      if (!window_->wait_for_room(kTurn)) {
        give_time(out);
        continue;
      }
      push(reader_->next(kTurn), out);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  reader_->request_stop();
  wait_for_receipts(out);
  if (failure) std::rethrow_exception(failure);
}

void SourceBinlog::close() noexcept {
  if (reader_) reader_->stop();
  reader_.reset();
  if (!window_) return;
  try {
    settle_behind();
    commit_what_is_due(true);
  } catch (const std::exception& error) {
    context_->warning(
        fmt::format("the last position is not kept: {}; the changes since the one "
                    "that is kept come again",
                    error.what()));
  }
  window_.reset();
}

void SourceBinlog::give_time(Output<Change>& out) {
  const auto now = steady_clock::now();
  if (now < next_time_) return;
  next_time_ = now + kTurn / 2;
  Batch<Change> batch;
  batch.watermark = context_->clock().now();
  out.push(std::move(batch));
}

void SourceBinlog::mark(GtidPosition position) {
  marks_.push_back({++number_, std::move(position)});
  behind_.reset();
}

void SourceBinlog::push(Portion portion, Output<Change>& out) {
  if (portion.changes.empty()) {
    if (portion.position) behind_ = std::move(portion.position);
    return give_time(out);
  }
  if (portion.position) {
    mark(std::move(*portion.position));
  } else if (behind_) {
    mark(*std::exchange(behind_, std::nullopt));
  }
  Batch<Change> batch(std::move(portion.changes));
  batch.watermark = context_->clock().now();
  batch.storage_bytes = portion.bytes;
  batch.receipt = window_->issue(number_);
  out.push(std::move(batch));
}

void SourceBinlog::settle_behind() {
  if (!behind_ || window_->unresolved() != 0 || window_->failed()) return;
  mark(*std::exchange(behind_, std::nullopt));
  window_->issue(number_).done();
}

void SourceBinlog::commit_what_is_due(bool now) {
  const std::uint64_t number = *committed_;
  while (!marks_.empty() && marks_.front().number <= number) {
    delivered_ = std::move(marks_.front().position);
    written_ = false;
    marks_.pop_front();
  }
  if (written_ || (!now && steady_clock::now() < next_commit_)) return;
  state_.write(*delivered_);
  written_ = true;
  next_commit_ = steady_clock::now() + options_.commit_every;
}

void SourceBinlog::read_again(Output<Change>& out, const std::stop_token& stop) {
  commit_what_is_due(true);
  again_->add();
  context_->warning(fmt::format(
      "a batch was not delivered; the log is read again {}",
      delivered_ ? "behind " + delivered_->to_string() : std::string("from its oldest file on")));
  reader_->stop();
  reader_.reset();
  new_window();
  const auto due = steady_clock::now() + options_.retry_pause;
  while (steady_clock::now() < due && !stop.stop_requested()) {
    std::this_thread::sleep_for(
        std::clamp(duration_cast<milliseconds>(due - steady_clock::now()), milliseconds(1), kTurn));
    give_time(out);
  }
  reader_ = std::make_unique<BinlogReader>(options_, server_, *context_);
  reader_->start(delivered_);
}

void SourceBinlog::wait_for_receipts(Output<Change>& out) {
  const auto give_up = steady_clock::now() + options_.finish;
  // Stages behind this one may wait for time to move before they finish what they hold.
  while (!window_->wait_until_empty(kTurn) && steady_clock::now() < give_up) give_time(out);
}

}  // namespace millrace
