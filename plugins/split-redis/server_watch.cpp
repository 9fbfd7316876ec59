#include "server_watch.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include <hiredis/hiredis.h>

namespace millrace {

namespace {

using std::string_view;

constexpr auto kPause = std::chrono::seconds(1);
/// How long it is shown that sessions were lost.
constexpr auto kShowLost = std::chrono::minutes(5);
/// Between two lines about keys that are set aside.
constexpr auto kQuiet = std::chrono::minutes(10);
constexpr Duration kMostSkew = std::chrono::seconds(1);
constexpr std::uint64_t kOldest = 5;  ///< scripts may ask for the time and write since Redis 5
constexpr string_view kPrefixes = "millrace:prefixes";

std::uint64_t number_of(string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string list_of(const redisReply& reply) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < reply.elements; ++i) {
    names.push_back("'" + std::string(text_of(*reply.element[i])) + "'");
  }
  std::ranges::sort(names);
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

}  // namespace

std::string_view info_field(string_view info, string_view name) {
  for (std::size_t at = info.find(name); at != string_view::npos; at = info.find(name, at + 1)) {
    const std::size_t end = at + name.size();
    if ((at == 0 || info[at - 1] == '\n') && end < info.size() && info[end] == ':') {
      return info.substr(end + 1, info.find_first_of("\r\n", end) - end - 1);
    }
  }
  return {};
}

ServerWatch::ServerWatch(Settings settings, Context& context)
    : settings_(std::move(settings)),
      record_key_(settings_.prefix + ":meta"),
      context_(context),
      redis_(context.condition("redis")),
      policy_(context.condition("redis-settings")),
      lost_(context.condition("lost")),
      set_aside_(context.counter("set-aside")),
      connection_(settings_.address,
                  {std::min<Duration>(settings_.timeouts.connect, std::chrono::seconds(2)),
                   std::min<Duration>(settings_.timeouts.command, std::chrono::seconds(5))}) {
  trouble_ = settings_.address.name() + ": not connected yet";
}

void ServerWatch::start() {
  try {
    look();
    trouble_.clear();
  } catch (const Transient& error) {
    // It may well come up after us.
    trouble_ = error.what();
    context_.warning(trouble_);
  }
  thread_ = std::thread([this] { run(); });
}

void ServerWatch::stop() noexcept {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ServerWatch::run() noexcept {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait_for(lock, kPause, [this] { return stopping_; });
    if (stopping_) return;
    const bool shown = lost_until_ && SteadyClock::now() >= *lost_until_;
    if (shown) lost_until_.reset();
    lock.unlock();
    if (shown) lost_.holds();
    look_again();
    lock.lock();
  }
}

void ServerWatch::look_again() noexcept {
  std::string trouble;
  std::string refusal;
  std::string option;
  try {
    look();
  } catch (const ConfigError& error) {
    refusal = error.what();
    option = error.option();
  } catch (const std::exception& error) {
    trouble = error.what();
    connection_.close();
  }
  if (trouble.empty()) {
    redis_.holds();
  } else {
    redis_.fails(trouble);
  }
  const std::lock_guard lock(mutex_);
  trouble_ = std::move(trouble);
  refusal_ = std::move(refusal);
  refused_option_ = std::move(option);
}

void ServerWatch::require_settings() {
  const std::lock_guard lock(mutex_);
  if (!refusal_.empty()) throw ConfigError(refused_option_, refusal_);
}

void ServerWatch::require_server() {
  require_settings();
  const std::lock_guard lock(mutex_);
  if (!trouble_.empty()) throw Transient(trouble_);
}

void ServerWatch::require_record() {
  const std::lock_guard lock(mutex_);
  if (!no_record_.empty()) throw Transient(no_record_);
}

bool ServerWatch::works() {
  const std::lock_guard lock(mutex_);
  return refusal_.empty() && trouble_.empty() && no_record_.empty();
}

void ServerWatch::require_room() {
  const std::uint64_t used = used_;
  const std::uint64_t limit = limit_;
  if (limit == 0 || used <= limit) return;
  throw Transient(settings_.address.name() + " holds " + std::to_string(used) +
                  " bytes, more than 'max_memory' (" + std::to_string(limit) +
                  "): waiting until analysers have made room");
}

void ServerWatch::report_lost(string_view why) noexcept {
  {
    const std::lock_guard lock(mutex_);
    lost_until_ = SteadyClock::now() + kShowLost;
  }
  lost_.fails(why, Condition::Grace::none);
}

void ServerWatch::report_set_aside(std::uint64_t keys) noexcept {
  if (keys == 0) return;
  set_aside_.add(keys);
  {
    const std::lock_guard lock(mutex_);
    const auto now = SteadyClock::now();
    if (quiet_until_ && now < *quiet_until_) return;
    quiet_until_ = now + kQuiet;
  }
  context_.warning(settings_.address.name() + " has keys named as those of prefix '" +
                   settings_.prefix +
                   "' that are not of their type: somebody else's. They were renamed (a '!' in the "
                   "name)");
}

std::vector<RedisReply> ServerWatch::ask(const RedisCommand& command) {
  const bool was_open = connection_.is_open();
  std::vector<RedisReply> replies;
  try {
    connection_.open();
    connection_.send(command.bytes());
    for (std::size_t i = 0; i < command.commands(); ++i) replies.push_back(connection_.read());
  } catch (const Transient&) {
    // A connection that was cut is no news if the next one works.
    if (!was_open) throw;
    replies.clear();
    connection_.open();
    connection_.send(command.bytes());
    for (std::size_t i = 0; i < command.commands(); ++i) replies.push_back(connection_.read());
  }
  return replies;
}

void ServerWatch::look() {
  RedisCommand command;
  command.put(string_view("INFO"));
  command.put(string_view("TIME"));
  command.put(string_view("HGETALL"), string_view(record_key_));
  for (const KeyNames& names : settings_.names) {
    command.put(string_view("EXISTS"), string_view(names.outbox()));
  }
  const Timestamp before = context_.clock().now();
  const std::vector<RedisReply> replies = ask(command);
  const Timestamp after = context_.clock().now();
  for (std::size_t i = 2; i < replies.size(); ++i) {
    if (!is_error(*replies[i]) || !text_of(*replies[i]).starts_with("MOVED")) continue;
    throw ConfigError("server", settings_.address.name() +
                                    " is a node of a Redis Cluster: expected a server without "
                                    "cluster mode (cluster-enabled no), or a proxy before the "
                                    "cluster");
  }
  if (is_error(*replies[0])) {
    // Who may not ask for it (ACL) works without.
    if (!std::exchange(unchecked_, true)) {
      context_.warning(settings_.address.name() +
                       ": its settings cannot be checked: " + std::string(text_of(*replies[0])));
    }
  } else {
    judge_server(text_of(*replies[0]));
    judge_memory(text_of(*replies[0]));
  }
  for (std::size_t i = 1; i < replies.size(); ++i) {
    if (is_error(*replies[i]) && !is_wrong_type(*replies[i])) connection_.raise(*replies[i]);
  }
  std::int64_t seconds = 0;
  if (replies[1]->elements == 2) {
    seconds = static_cast<std::int64_t>(number_of(text_of(*replies[1]->element[0])));
    const auto us = static_cast<std::int64_t>(number_of(text_of(*replies[1]->element[1])));
    judge_clock(before, Timestamp(std::chrono::seconds(seconds) + std::chrono::microseconds(us)),
                after);
  }
  if (is_error(*replies[2]) && settings_.role == Role::receiver) {
    RedisCommand rename;
    rename.put(string_view("RENAME"), string_view(record_key_),
               string_view(settings_.prefix + ":!meta"));
    const std::vector<RedisReply> renamed = ask(rename);
    if (is_error(*renamed[0])) connection_.raise(*renamed[0]);
    report_set_aside(1);
  }
  judge_record(*replies[2], seconds);
  seen_ = true;
}

void ServerWatch::judge_server(string_view info) {
  const std::string name = settings_.address.name();
  const string_view version = info_field(info, "redis_version");
  if (!version.empty() && number_of(version) < kOldest) {
    throw ConfigError("server", name + " is version " + std::string(version) + ": expected Redis " +
                                    std::to_string(kOldest) + ".0 or later");
  }
  // With several buckets there may be a proxy before the cluster that passes this on.
  if (info_field(info, "cluster_enabled") == "1" && settings_.names.size() == 1) {
    throw ConfigError("server", name +
                                    " runs in cluster mode: expected a server without it "
                                    "(cluster-enabled no), or a proxy before the cluster and "
                                    "'buckets' above 1");
  }
  if (info_field(info, "role") == "slave") {
    throw Transient(name + " is a replica of " + std::string(info_field(info, "master_host")) +
                    ":" + std::string(info_field(info, "master_port")) +
                    ", which must not be written to: give the master's address, or promote it");
  }
  const string_view policy = info_field(info, "maxmemory_policy");
  if (!policy.empty() && policy != "noeviction") {
    const std::string why = name + " has maxmemory-policy " + std::string(policy) +
                            ", with which it deletes sessions that wait when its memory is full: "
                            "set 'maxmemory-policy noeviction'";
    if (!seen_) throw ConfigError("server", why);
    policy_.fails(why, Condition::Grace::none);
  } else {
    policy_.holds();
  }
  const bool append_only = info_field(info, "aof_enabled") != "0";
  if (append_only_ != append_only) {
    if (!append_only) {
      context_.warning(name +
                       " has no append-only file: what it holds is lost when it ends. Set "
                       "'appendonly yes'");
    } else if (append_only_) {
      context_.info(name + " has an append-only file now");
    }
    append_only_ = append_only;
  }
}

void ServerWatch::judge_memory(string_view info) {
  used_ = number_of(info_field(info, "used_memory"));
  const std::uint64_t most = number_of(info_field(info, "maxmemory"));
  const std::uint64_t machine = number_of(info_field(info, "total_system_memory"));
  limit_ = settings_.max_memory != 0 ? settings_.max_memory
           : most != 0               ? most / 5 * 4
                                     : machine / 2;
}

void ServerWatch::judge_clock(Timestamp before, Timestamp redis, Timestamp after) {
  // It was asked at some time between the two.
  const Duration ahead = before > redis  ? before - redis
                         : after < redis ? after - redis
                                         : Duration(0);
  const bool differs = std::chrono::abs(ahead) > kMostSkew;
  if (std::exchange(clock_differs_, differs) == differs) return;
  if (!differs) {
    context_.info("this machine's clock agrees with that of " + settings_.address.name() +
                  " again");
    return;
  }
  std::array<char, 32> seconds{};
  std::snprintf(seconds.data(), seconds.size(), "%.1f s",
                std::abs(std::chrono::duration<double>(ahead).count()));
  context_.warning("this machine's clock is " + std::string(seconds.data()) +
                   (ahead > Duration(0) ? " ahead of" : " behind") + " that of " +
                   settings_.address.name() +
                   ": sessions are timed by Redis's clock alone; synchronize both (NTP)");
}

void ServerWatch::judge_record(const redisReply& reply, std::int64_t now) {
  Record record;
  for (std::size_t i = 0; i + 1 < reply.elements; i += 2) {
    record.emplace(text_of(*reply.element[i]), text_of(*reply.element[i + 1]));
  }
  const auto id = record.find("id");
  const std::string found = id == record.end() ? "" : id->second;
  if (!id_.empty() && found != id_) {
    ++emptied_;
    report_lost(settings_.address.name() +
                " was emptied, or started without its append-only file: the sessions that waited "
                "there are lost");
    id_.clear();
  }
  compare(record);
  if (settings_.role == Role::receiver) {
    write_record(record, now);
  } else if (found.empty()) {
    miss_record();
    return;
  }
  id_ = record["id"];
  const auto created = static_cast<std::int64_t>(number_of(record["created"]));
  const auto kept = static_cast<std::int64_t>(number_of(record["kept"]));
  remembers_all_ = now < created + kept;
  const std::lock_guard lock(mutex_);
  no_record_.clear();
}

/// What is not in the record yet is added; of two processes that do so at once the first wins.
void ServerWatch::write_record(Record& record, std::int64_t now) {
  RedisCommand command;
  const auto add = [&](string_view name, string_view value) {
    const auto there = record.find(name);
    if (there != record.end() && there->second == value) return;
    // The newest value is the one that the operator wants.
    if (there != record.end() && seen_) return;
    command.put(string_view(there == record.end() ? "HSETNX" : "HSET"), string_view(record_key_),
                name, value);
  };
  const bool fresh = !record.contains("id");
  for (const SharedSetting& setting : settings_.shared) add(setting.name, setting.value);
  if (fresh) {
    std::string id;
    for (const char byte : random_bytes(8)) {
      constexpr string_view kDigits = "0123456789abcdef";
      id += kDigits[static_cast<std::uint8_t>(byte) >> 4U];
      id += kDigits[static_cast<std::uint8_t>(byte) & 15U];
    }
    add("created", std::to_string(now));
    add("id", id);
  }
  if (command.commands() == 0) return;
  if (fresh) command.put(string_view("SADD"), kPrefixes, string_view(settings_.prefix));
  command.put(string_view("HGETALL"), string_view(record_key_));
  const std::vector<RedisReply> replies = ask(command);
  for (const RedisReply& one : replies) {
    if (is_error(*one) && !is_wrong_type(*one)) connection_.raise(*one);
  }
  record.clear();
  const redisReply& now_there = *replies.back();
  for (std::size_t i = 0; i + 1 < now_there.elements; i += 2) {
    record.emplace(text_of(*now_there.element[i]), text_of(*now_there.element[i + 1]));
  }
  compare(record);
}

void ServerWatch::compare(const Record& record) {
  for (const SharedSetting& setting : settings_.shared) {
    const auto there = record.find(setting.name);
    if (there == record.end() || there->second == setting.value) {
      warned_.erase(setting.name);
      continue;
    }
    const std::string differs = "'" + setting.name + "' is " + setting.value + " here, and " +
                                there->second + " in the record of prefix '" + settings_.prefix +
                                "' at " + settings_.address.name();
    if (setting.must_agree) {
      throw ConfigError(
          setting.name,
          differs +
              ": all receivers and analysers need the same value, or sessions are lost. To change "
              "it, use another 'prefix', or stop them all when nothing waits and delete the key " +
              record_key_);
    }
    std::string& warned = warned_[setting.name];
    if (std::exchange(warned, there->second) == there->second) continue;
    context_.warning(differs + (seen_ ? ", by another receiver: " : ", so far: ") +
                     "how packets become sessions depends on the receiver while they differ");
  }
}

void ServerWatch::miss_record() {
  RedisCommand command;
  command.put(string_view("SMEMBERS"), kPrefixes);
  const std::vector<RedisReply> replies = ask(command);
  const std::string prefixes = list_of(*replies[0]);
  std::string why = "no receiver has used the prefix '" + settings_.prefix + "' at " +
                    settings_.address.name() +
                    (prefixes.empty() ? ", nor any other" : "; others in use there: " + prefixes) +
                    ": expected the 'server' and 'prefix' of the receivers";
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(no_record_, why) == why) return;
  }
  if (!prefixes.empty()) context_.warning(why);
}

}  // namespace millrace
