#include "split_redis.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <hiredis/hiredis.h>

namespace millrace {

namespace {

/// The answer to a batch smaller than this is waited for: nothing else seems to be coming, and who
/// posted it waits too.
constexpr std::size_t kSmallBatch = 256;

std::uint32_t seconds(Duration duration) {
  return static_cast<std::uint32_t>(
      std::max<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(duration).count(), 1));
}

std::string settings_of(const SplitRedisOptions& options) {
  std::string settings;
  append_number(settings, options.packets);
  for (const Duration duration : {options.delay, options.idle}) {
    append_double(settings, duration.count());
  }
  append_number(settings, static_cast<std::uint8_t>(options.keep));
  append_number(settings, seconds(options.expire));
  append_number(settings, seconds(options.idle + options.remember));
  append_double(settings, (options.idle + options.remember).count());
  return settings;
}

std::string in_words(Duration duration) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.9g s",
                std::chrono::duration<double>(duration).count());
  return text.data();
}

std::vector<SharedSetting> shared_settings(const SplitRedisOptions& options) {
  constexpr std::array<const char*, 3> kLayers{"l2", "l4", "l7"};
  static_assert(static_cast<int>(Layer::l2) == 0 && static_cast<int>(Layer::l7) == 2);
  return {layout_setting(),
          buckets_setting(options.buckets),
          {"keep", kLayers[static_cast<std::size_t>(options.keep)], true},
          {"packets", std::to_string(options.packets)},
          {"delay", in_words(options.delay)},
          {"idle", in_words(options.idle)},
          {"kept", std::to_string(seconds(options.idle + options.remember))}};
}

}  // namespace

// --- What is announced
// ------------------------------------------------------------------------------------

Receipt Announcements::announce(const std::shared_ptr<Announcements>& self, Id id, Receipt input) {
  {
    const std::lock_guard lock(self->mutex_);
    self->open_.insert(id);
  }
  const Receipt::Deadline deadline = input.deadline();
  return Receipt::make(
      [self, id = std::move(id), input = std::move(input)](Outcome outcome) mutable noexcept {
        if (outcome == Outcome::done) {
          self->settle(id);
        } else {
          // It stays in Redis, and a sweep announces it again.
          const std::lock_guard lock(self->mutex_);
          self->open_.erase(id);
        }
        input.resolve(outcome);
      },
      deadline);
}

void Announcements::settle(const Id& id) {
  const std::lock_guard lock(mutex_);
  open_.erase(id);
  settled_[id.first] += id.second;
  any_settled_ = true;
}

std::string Announcements::take_settled(std::uint32_t bucket) {
  const std::lock_guard lock(mutex_);
  std::string ids = std::exchange(settled_[bucket], {});
  any_settled_ = std::ranges::any_of(settled_, [](const auto& one) { return !one.second.empty(); });
  return ids;
}

bool Announcements::any_settled() {
  const std::lock_guard lock(mutex_);
  return any_settled_;
}

std::string Announcements::open(std::uint32_t bucket) {
  const std::lock_guard lock(mutex_);
  std::string ids;
  for (const auto& [of, id] : open_) {
    if (of == bucket) ids += id;
  }
  return ids;
}

// --- The stage
// --------------------------------------------------------------------------------------------

SplitRedis::SplitRedis(const SplitRedisOptions& options)
    : options_(options),
      run_(random_bytes(8)),
      settings_(settings_of(options)),
      next_number_(options.buckets, 1),
      fragments_(options.max_fragments),
      groups_({options.idle, options.keep, options.buckets, options.packets, options.delay,
               seconds(options.idle + options.remember)}),
      known_(options.known) {
  for (std::uint32_t bucket = 0; bucket < options.buckets; ++bucket) {
    names_.emplace_back(options.prefix, bucket);
  }
}

void SplitRedis::check(const SplitRedisOptions& options, Findings& findings) {
  try {
    (void)parse_redis_url(options.server, options.ca);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
  if (options.prefix.find_first_of("{}") != std::string::npos) {
    findings.add("prefix", "must hold no { or }: they mark what a Redis Cluster hashes");
  }
  if (options.expire < options.sweep_after) {
    findings.add("expire", "must be longer than 'sweep_after', or tickets come late");
  }
}

void SplitRedis::open(Context& context) {
  context_ = &context;
  sessions_ = &context.counter("sessions");
  joined_ = &context.counter("joined-fragments");
  announced_ = &context.counter("announced");
  swept_ = &context.counter("announced-again");
  calls_ = &context.counter("calls");
  thin_packets_ = &context.counter("sent-without-bytes");
  appended_ = &context.counter("appended");
  taken_back_ = &context.counter("taken-back");
  clock_jumps_ = &context.counter("clock-jumps");
  const RedisAddress address = parse_redis_url(options_.server, options_.ca);
  const RedisTimeouts timeouts{options_.connect_timeout, options_.timeout};
  watch_ =
      std::make_unique<ServerWatch>(ServerWatch::Settings{.address = address,
                                                          .timeouts = timeouts,
                                                          .prefix = options_.prefix,
                                                          .names = names_,
                                                          .shared = shared_settings(options_),
                                                          .role = ServerWatch::Role::receiver,
                                                          .max_memory = options_.max_memory.bytes},
                                    context);
  watch_->start();
  window_ = std::make_unique<CallWindow>(address, timeouts, &context.counter("reconnects"));
}

Coalesce SplitRedis::coalesce() const { return {options_.batch, std::chrono::milliseconds(5)}; }

void SplitRedis::process(Batch<Packet>& in, Output<Ticket>& out) {
  if (in.watermark != kNoTime && in.watermark != kStreamEnds) watermark_ = in.watermark;
  watch_->require_server();
  window_->ready();
  while (window_->size() >= options_.in_flight) answer(out);
  const Timestamp now = context_->clock().now();
  if (now >= next_sweep_ || next_sweep_ - now > options_.sweep) {
    sweep(true);
    next_sweep_ = now + options_.sweep;
  }
  if (in.items.empty()) {
    drain(out);
    if (announcements_->any_settled()) {
      sweep(false);
      drain(out);
    }
    return;
  }
  watch_->require_room();
  if (watch_->times_emptied() != times_emptied_) forget_all();
  decode_all(in);
  if (!unknown_fragments_.empty()) {
    drain(out);
    ask();
  }
  group_all();
  while (!choose_thin()) drain(out);
  const std::size_t packets = in.items.size();
  take(in);
  try {
    if (packets < kSmallBatch) {
      drain(out);
    } else {
      while (window_->answered()) answer(out);
    }
  } catch (const Transient&) {
    // The batch is taken; the next call sends again what is unanswered.
  }
}

void SplitRedis::drain(Output<Ticket>& out) {
  window_->ready();
  while (window_->size() != 0) answer(out);
}

void SplitRedis::flush(Output<Ticket>& out) { drain(out); }

void SplitRedis::close() noexcept {
  if (watch_) watch_->stop();
  if (!window_) return;
  try {
    // What is not cleared now is announced once more by somebody's sweep, or expires.
    if (window_->size() == 0 && announcements_->any_settled()) {
      sweep(false);
      while (window_->size() != 0) static_cast<void>(window_->pop());
    }
  } catch (const std::exception& error) {
    context_->warning(error.what());
  }
  window_.reset();
  watch_.reset();
}

/// Redis was emptied: nothing is as it was known to be.
void SplitRedis::forget_all() {
  times_emptied_ = watch_->times_emptied();
  known_ = KnownFlows(options_.known);
}

}  // namespace millrace
