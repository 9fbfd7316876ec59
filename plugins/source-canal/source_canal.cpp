#include "source_canal.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTurn{100};

Place place_of(const rd_kafka_message_t& message) {
  return {rd_kafka_topic_name(message.rkt), message.partition};
}

}  // namespace

void check_canal_options(const CanalOptions& options, Findings& findings) {
  for (const std::string& table : options.tables) {
    const std::size_t dot = table.find('.');
    if (dot == std::string::npos || dot == 0 || dot + 1 == table.size()) {
      findings.add("tables", fmt::format("'{}' is not of the form database.table", table));
    }
  }
  if (options.topics.empty() ||
      std::any_of(options.topics.begin(), options.topics.end(),
                  [](const std::string& topic) { return topic.empty(); })) {
    findings.add("topics", "expected the name of a topic, or a list of names");
  }
  if (options.group.empty()) findings.add("group", "expected the name of a consumer group");
  try {
    const auto valid = kafka_configuration(options);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
}

void SourceCanal::open(Context& context) {
  context_ = &context;
  messages_ = &context.counter("messages");
  again_ = &context.counter("read-again");
  before_unknown_ = &context.counter("before-unknown");
  auto consumer = std::make_unique<KafkaConsumer>(options_, context,
                                                  static_cast<KafkaConsumer::Listener&>(*this));
  consumer->join();
  consumer_ = std::move(consumer);
}

void SourceCanal::run(Output<Change>& out, std::stop_token stop) {
  bool readable = true;
  while (readable && !stop.stop_requested()) {
    settle();
    consumer_->watch();
    if (!room()) {
      out.push(Batch<Change>());
      continue;
    }
    rewind_what_is_due();
    Filling filling;
    readable = collect(filling, stop);
    push(std::move(filling), out);
  }
  wait_for_receipts(out);
  if (!readable) throw std::runtime_error(unreadable_);
}

void SourceCanal::close() noexcept {
  if (!consumer_) return;
  const auto patience = duration_cast<milliseconds>(options_.finish);
  closing_ = true;
  try {
    settle();
    const std::vector<PlaceOffset> rest = tracker_.unconfirmed();
    if (!rest.empty()) consumer_->commit_now(rest, patience);
    for (const PlaceOffset& offset : rest) tracker_.confirmed(offset);
  } catch (const std::exception& error) {
    context_->warning(
        fmt::format("the last offsets are not committed: {}; the messages since the "
                    "last commit come again",
                    error.what()));
  }
  consumer_->close(patience);
  left_.reset();
  consumer_.reset();
}

bool SourceCanal::room() {
  constexpr milliseconds kHold{1000};
  bool is_room = false;
  {
    std::unique_lock lock(inbox_->mutex);
    is_room = inbox_->changed.wait_for(lock, full_since_ ? kTurn : milliseconds(0),
                                       [this] { return inbox_->outstanding < options_.window; });
  }
  const auto now = steady_clock::now();
  if (is_room) {
    full_since_.reset();
    if (held_) resume_partitions();
    return true;
  }
  if (!full_since_) full_since_ = now;
  // The group must hear of this member even if the next stage takes nothing for long.
  if (now - *full_since_ < kHold) return false;
  hold_partitions();
  if (!left_) left_ = consumer_->poll(milliseconds(0));
  return false;
}

void SourceCanal::hold_partitions() {
  if (!std::exchange(held_, true)) consumer_->pause({places_.begin(), places_.end()});
}

void SourceCanal::resume_partitions() {
  held_ = false;
  std::vector<Place> places;
  std::copy_if(places_.begin(), places_.end(), std::back_inserter(places),
               [this](const Place& place) { return !rewinds_.contains(place); });
  consumer_->resume(places);
}

bool SourceCanal::collect(Filling& filling, const std::stop_token& stop) {
  // A rebalance during a poll takes its partitions' messages out of the batch.
  struct Current {
    Filling*& place;
    ~Current() { place = nullptr; }
  } const current{filling_ = &filling};
  milliseconds patience = kTurn;
  const auto give_up = steady_clock::now() + kTurn;
  while (filling.batch.items.size() < options_.batch && !stop.stop_requested()) {
    const Kafka<rd_kafka_message_t> message =
        left_ ? std::exchange(left_, nullptr) : consumer_->poll(patience);
    if (message) {
      if (!take(filling, *message)) return false;
      patience = milliseconds(0);
    }
    if (!message || steady_clock::now() >= give_up) break;
  }
  return true;
}

bool SourceCanal::take(Filling& filling, const rd_kafka_message_t& message) {
  const Place place = place_of(message);
  // It comes again when the partition is read again.
  if (rewinds_.contains(place)) return true;
  ChangeMessage content;
  try {
    content = read_change_message(
        options_.format, std::string_view(static_cast<const char*>(message.payload), message.len));
  } catch (const std::exception& error) {
    report_unreadable(message, error.what());
    if (options_.on_bad == OnBad::stop) return false;
    content.skipped = "unreadable";
  }
  messages_->add();
  if (!content.skipped.empty()) context_->dropped(content.skipped, 1);
  if (!content.emptied.empty()) warn_of_rows_that_went(message, content.emptied);
  before_unknown_->add(content.before_unknown);
  keep_wanted(content, filling);
  filling.batch.storage_bytes += message.len;
  auto [range, is_new] = filling.ranges.try_emplace(place, Range{message.offset, 0});
  range->second.next = message.offset + 1;
  return true;
}

void SourceCanal::warn_of_rows_that_went(const rd_kafka_message_t& message,
                                         const std::string& table) const {
  const std::string database = table.substr(0, table.find('.') + 1);
  const bool whole = table.ends_with(".*");
  const bool wanted = tables_.empty() || std::ranges::any_of(tables_, [&](const std::string& one) {
                        return whole ? one.starts_with(database) : one == table;
                      });
  if (!wanted) return;
  context_->warning(fmt::format(
      "topic '{}', partition {}, offset {}: {} was truncated or dropped; its rows went without a "
      "change of their own, so what was made of them stays",
      rd_kafka_topic_name(message.rkt), message.partition, message.offset, table));
}

void SourceCanal::keep_wanted(ChangeMessage& message, Filling& filling) {
  std::uint64_t unwanted = 0;
  for (Change& change : message.changes) {
    if (!tables_.empty() && !tables_.contains(change.database + '.' + change.table)) {
      ++unwanted;
    } else {
      filling.batch.items.push_back(std::move(change));
    }
  }
  if (unwanted != 0) context_->dropped("table", unwanted);
}

void SourceCanal::push(Filling filling, Output<Change>& out) {
  const std::uint64_t number = next_batch_;
  if (!filling.ranges.empty()) {
    ++next_batch_;
    for (const auto& [place, range] : filling.ranges) {
      tracker_.add(number, place, range.first, range.next);
    }
    if (filling.batch.items.empty()) {
      tracker_.resolve(number, Outcome::done);
    } else {
      {
        const std::lock_guard lock(inbox_->mutex);
        ++inbox_->outstanding;
      }
      filling.batch.receipt = Receipt::make([inbox = inbox_, number](Outcome outcome) noexcept {
        const std::lock_guard lock(inbox->mutex);
        --inbox->outstanding;
        inbox->resolved.push_back({number, outcome});
        inbox->changed.notify_all();
      });
    }
  }
  out.push(std::move(filling.batch));
}

void SourceCanal::settle() {
  std::vector<Resolved> resolved;
  {
    const std::lock_guard lock(inbox_->mutex);
    resolved.swap(inbox_->resolved);
  }
  for (const Resolved& one : resolved) {
    for (const auto& [place, offset] : tracker_.resolve(one.batch, one.outcome)) {
      if (closing_) continue;
      again_->add();
      context_->warning(
          fmt::format("a batch was not delivered; topic '{}', partition {} is read again from "
                      "offset {}",
                      place.topic, place.partition, offset));
      consumer_->pause({place});
      rewinds_[place] = {offset, steady_clock::now() + options_.retry_pause};
      let_go(place);
    }
  }
  commit_what_is_due();
}

void SourceCanal::rewind_what_is_due() {
  const auto now = steady_clock::now();
  for (auto it = rewinds_.begin(); it != rewinds_.end();) {
    auto& [place, rewind] = *it;
    if (rewind.due > now) {
      ++it;
      continue;
    }
    // Seeking last: it throws away what is fetched in between.
    consumer_->resume({place});
    const std::string problem = consumer_->seek({place, rewind.offset});
    if (problem.empty()) {
      it = rewinds_.erase(it);
      continue;
    }
    context_->warning(fmt::format("topic '{}', partition {}: cannot go back to offset {}: {}",
                                  place.topic, place.partition, rewind.offset, problem));
    consumer_->pause({place});
    rewind.due = now + options_.retry_pause;
    ++it;
  }
}

void SourceCanal::commit_what_is_due() {
  const auto now = steady_clock::now();
  if (now < next_commit_) return;
  const std::vector<PlaceOffset> offsets = tracker_.to_commit();
  if (offsets.empty()) return;
  next_commit_ = now + options_.commit_every;
  consumer_->commit(offsets);
}

void SourceCanal::wait_for_receipts(Output<Change>& out) {
  const auto give_up = steady_clock::now() + options_.finish;
  // Stages behind this one may wait for time to move before they finish what they hold.
  while (steady_clock::now() < give_up) {
    std::unique_lock lock(inbox_->mutex);
    if (inbox_->changed.wait_for(lock, kTurn, [this] { return inbox_->outstanding == 0; })) break;
    lock.unlock();
    out.push(Batch<Change>());
  }
}

void SourceCanal::report_unreadable(const rd_kafka_message_t& message, const std::string& reason) {
  constexpr std::uint32_t kLines = 10;
  constexpr std::chrono::seconds kSpan{10};
  unreadable_ =
      fmt::format("topic '{}', partition {}, offset {} cannot be read: {}",
                  rd_kafka_topic_name(message.rkt), message.partition, message.offset, reason);
  const auto now = steady_clock::now();
  if (now - complaints_since_ > kSpan) {
    if (complaints_ > kLines) {
      context_->error(fmt::format("{} more messages could not be read", complaints_ - kLines));
    }
    complaints_since_ = now;
    complaints_ = 0;
  }
  if (++complaints_ <= kLines) context_->error(unreadable_);
}

void SourceCanal::assigned(const std::vector<Place>& places) {
  places_.insert(places.begin(), places.end());
  for (const Place& place : places) {
    context_->info(fmt::format("reads topic '{}', partition {}", place.topic, place.partition));
  }
  if (held_) consumer_->pause(places);
}

void SourceCanal::revoked(const std::vector<Place>& places, bool lost) {
  settle();
  std::vector<PlaceOffset> last;
  for (const Place& place : places) {
    const std::vector<PlaceOffset> one = tracker_.unconfirmed(place);
    last.insert(last.end(), one.begin(), one.end());
  }
  if (!lost && !closing_ && !last.empty()) {
    try {
      consumer_->commit_now(last, duration_cast<milliseconds>(options_.finish));
    } catch (const std::exception& error) {
      context_->warning(
          fmt::format("offsets of partitions that go to another member are not "
                      "committed: {}; it reads those messages again",
                      error.what()));
    }
  }
  for (const Place& place : places) {
    tracker_.forget(place);
    places_.erase(place);
    rewinds_.erase(place);
    let_go(place);
  }
}

void SourceCanal::let_go(const Place& place) {
  // Changes that are in a batch already are given on all the same, and come again.
  if (filling_ != nullptr) filling_->ranges.erase(place);
  if (left_ && place_of(*left_) == place) left_.reset();
}

void SourceCanal::committed(const std::vector<PlaceOffset>& offsets, const std::string& error) {
  for (const PlaceOffset& one : offsets) {
    if (error.empty()) {
      tracker_.confirmed(one);
    } else {
      tracker_.not_committed(one.place);
    }
  }
  constexpr std::chrono::seconds kSpan{10};
  const auto now = steady_clock::now();
  if (error.empty() || now < next_commit_complaint_) return;
  next_commit_complaint_ = now + kSpan;
  context_->warning(fmt::format("offsets are not committed yet: {}", error));
}

}  // namespace millrace
