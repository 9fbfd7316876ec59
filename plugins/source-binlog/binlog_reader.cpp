#include "binlog_reader.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "reminder.h"

namespace millrace {

using std::chrono::steady_clock;

namespace {

constexpr Duration kFirstPause = std::chrono::milliseconds(250);
constexpr Duration kLongestPause = std::chrono::seconds(10);

/// FNV-1a: the same in every process and on every machine.
std::uint32_t hash_of(std::string_view text) {
  std::uint32_t hash = 2166136261U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

/// Server ids that people give are small; those in the upper half are made of names.
std::uint32_t server_id(const BinlogOptions& options) {
  if (options.server_id != 0) return options.server_id;
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return hash_of(std::string(host.data()) + ':' + options.state) | 0x80000000U;
}

}  // namespace

BinlogReader::BinlogReader(const BinlogOptions& options, const ConnectionOptions& server,
                           Context& context)
    : options_(options),
      server_(server),
      context_(&context),
      reconnects_(&context.counter("reconnects")),
      gaps_(&context.counter("gaps")),
      catalog_(server),
      stream_({server, server_id(options), options.heartbeat}),
      decoder_(options, context, [this](TableMap& map) { catalog_.complete(map); }) {}

std::optional<GtidPosition> BinlogReader::first_position() const {
  if (options_.start == StartAt::oldest) return std::nullopt;
  Connection connection;
  connection.open(server_);
  return GtidPosition::parse(connection.query("SELECT @@gtid_binlog_pos").at(0).at(0).value_or(""));
}

void BinlogReader::connect(std::optional<GtidPosition> position) {
  if (!position) position = first_position();
  try {
    stream_.open(position);
  } catch (const PositionLost& error) {
    const std::string lost =
        fmt::format("the position {} of the state file '{}' cannot be read on from: {}",
                    position ? position->to_string() : "", options_.state, error.what());
    if (options_.on_gap == OnGap::stop) {
      throw std::runtime_error(
          fmt::format("{}; what was changed meanwhile does not come. on_gap = \"start\" goes on "
                      "where 'start' says, as without the state file",
                      lost));
    }
    gaps_->add();
    context_->error(
        fmt::format("{}; what was changed meanwhile does not come, and it goes on with "
                    "start = \"{}\"",
                    lost, options_.start == StartAt::now ? "now" : "oldest"));
    position = first_position();
    stream_.open(position);
  }
  decoder_.begin(std::move(position));
}

void BinlogReader::start(const std::optional<GtidPosition>& position) {
  begin_ = position;
  thread_ = std::thread([this] { run(); });
}

void BinlogReader::request_stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  stream_.interrupt();
}

void BinlogReader::stop() noexcept {
  request_stop();
  if (thread_.joinable()) thread_.join();
  stream_.close();
}

Portion BinlogReader::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [this] { return !ready_.empty() || failure_; });
  if (ready_.empty() && failure_) std::rethrow_exception(failure_);
  Portion taken = std::exchange(ready_, Portion());
  changed_.notify_all();
  return taken;
}

void BinlogReader::run() {
  try {
    read(begin_);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

void BinlogReader::read(std::optional<GtidPosition> position) {
  std::mt19937 random{std::random_device{}()};
  Duration longest = kFirstPause;
  Reminder lost;
  do {
    try {
      if (!stream_.is_open()) {
        connect(position);
        reconnects_->add();
        if (lost.clear()) {
          context_->info(fmt::format("{}: connected again", to_string(server_.address)));
        }
      }
      longest = kFirstPause;
      read_stream();
    } catch (const ServerError& error) {
      stream_.close();
      {
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
      }
      constexpr int kSameServerId = 4052;
      if (error.code() == kSameServerId) {
        throw std::runtime_error(
            fmt::format("{}; another replica has the server_id {} too, so give each its own",
                        error.what(), server_id(options_)));
      }
      if (!error.passes()) throw;
      if (lost.due("lost", steady_clock::now())) {
        context_->warning(fmt::format("{}; connects again until it is there", error.what()));
      }
    }
    if (decoder_.position()) position = decoder_.position();
    const auto most = std::chrono::duration_cast<std::chrono::nanoseconds>(longest).count();
    const Duration time(std::uniform_int_distribution<std::int64_t>(most / 4, most)(random));
    longest = std::min(2 * longest, kLongestPause);
    if (!pause(time)) return;
  } while (true);
}

void BinlogReader::read_stream() {
  while (true) {
    if (const MARIADB_RPL_EVENT* event = stream_.fetch()) {
      decoder_.take(*event);
    } else {
      decoder_.take_unknown(stream_.problem());
    }
    hand_over();
  }
}

void BinlogReader::hand_over() {
  Portion portion = decoder_.portion();
  std::unique_lock lock(mutex_);
  if (portion.empty() && !stopping_) return;
  changed_.wait(lock, [this] { return ready_.changes.size() < options_.batch || stopping_; });
  if (stopping_) {
    constexpr int kInterrupted = 1317;
    throw ServerError("the reading was ended", kInterrupted, true);
  }
  ready_.append(std::move(portion));
  changed_.notify_all();
}

bool BinlogReader::pause(Duration time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [this] { return stopping_; });
}

}  // namespace millrace
