#include "consumer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// How long nothing is published after the broker was found in alarm.
constexpr std::chrono::seconds kAlarmPause{30};

}  // namespace

void RabbitOut::open(Context& context) {
  context_ = &context;
  messages_ = &context.counter("messages");
  tickets_ = &context.counter("tickets");
  acknowledged_ = &context.counter("acknowledged");
  retried_ = &context.counter("retried");
  dead_ = &context.counter("dead");
  consumer_ = &context.condition("consumer");
  link_ = std::make_unique<Link>(options_, context, static_cast<Link::Work&>(*this));
  inbox_->link = link_.get();
  link_->start();
}

void RabbitOut::run(Output<Ticket>& out, std::stop_token stop) {
  constexpr milliseconds kPatience{100};
  while (!stop.stop_requested()) {
    Batch<Ticket> batch;
    {
      std::unique_lock lock(inbox_->mutex);
      const auto ready = [this] {
        return !inbox_->arrived.empty() && steady_clock::now() >= inbox_->pause.until();
      };
      const auto now = steady_clock::now();
      auto until = now + kPatience;
      if (inbox_->pause.until() > now) until = std::min(until, inbox_->pause.until());
      inbox_->changed.wait_until(lock, until, ready);
      if (ready()) {
        batch = std::move(inbox_->arrived.front());
        inbox_->arrived.pop_front();
      }
    }
    out.push(std::move(batch));
  }
  // No more deliveries; what is under way may still be acknowledged.
  stopping_ = true;
  link_->wake();
  std::deque<Batch<Ticket>> not_begun;
  {
    const std::lock_guard lock(inbox_->mutex);
    not_begun.swap(inbox_->arrived);
  }
  const auto give_up = steady_clock::now() + options_.finish;
  // Stages behind this one may wait for time to move before they finish what they hold.
  while (steady_clock::now() < give_up) {
    std::unique_lock lock(inbox_->mutex);
    const std::size_t unbegun = not_begun.size();
    if (inbox_->changed.wait_for(lock, kPatience, [&] {
          return inbox_->outstanding <= unbegun && inbox_->resolved.empty() && inbox_->moving == 0;
        })) {
      break;
    }
    lock.unlock();
    out.push(Batch<Ticket>());
  }
}

void RabbitOut::close() noexcept {
  if (!link_) return;
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->link = nullptr;
  }
  // Closing the connection gives back what is not acknowledged.
  link_->stop();
  drop_arrived();
}

void RabbitOut::drop_arrived() {
  std::deque<Batch<Ticket>> arrived;
  const std::lock_guard lock(inbox_->mutex);
  arrived.swap(inbox_->arrived);
}

void RabbitOut::tell_moving() {
  const std::lock_guard lock(inbox_->mutex);
  inbox_->moving = moving_.size();
  inbox_->changed.notify_all();
}

Receipt RabbitOut::receipt_for(std::uint64_t tag) {
  {
    const std::lock_guard lock(inbox_->mutex);
    ++inbox_->outstanding;
  }
  return Receipt::make([inbox = inbox_, connection = connection_, tag](Outcome outcome) noexcept {
    const std::lock_guard lock(inbox->mutex);
    --inbox->outstanding;
    if (outcome == Outcome::done) {
      inbox->pause.done();
    } else {
      inbox->pause.failed(steady_clock::now());
    }
    inbox->resolved.push_back({connection, tag, outcome});
    if (inbox->link != nullptr) inbox->link->wake();
    inbox->changed.notify_all();
  });
}

void RabbitOut::connected(AmqpSession& session) {
  ++connection_;
  cancelled_ = false;
  if (stopping_) return;
  unread_ = topology_.taken();
  consume_again(session);
}

void RabbitOut::consume_again(AmqpSession& session) {
  for (const std::string& queue : unread_) {
    session.consume(queue, static_cast<std::uint16_t>(options_.prefetch));
  }
  unread_.clear();
  consumer_->holds();
}

void RabbitOut::checked(AmqpSession& /*session*/, const std::vector<std::string>& unread) {
  if (unread.empty() || stopping_) return;
  consumer_->fails(fmt::format("the broker has no consumer for {}", fmt::join(unread, ", ")));
  unread_ = unread;
}

void RabbitOut::lost() {
  // The broker gives these out again; receipts of the old connection are void by its number.
  held_.clear();
  deliveries_.clear();
  moving_.clear();
  tell_moving();
  drop_arrived();
}

void RabbitOut::event(AmqpSession& session, AmqpSession::Event& event) {
  using Kind = AmqpSession::Event::Kind;
  switch (event.kind) {
    case Kind::delivered:
      return deliver(session, event);
    case Kind::confirmed: {
      const auto end = moving_.upper_bound(event.tag);
      const auto begin = event.multiple ? moving_.begin() : moving_.find(event.tag);
      if (begin == moving_.end()) return;
      for (auto it = begin; it != end; ++it) session.acknowledge(it->second);
      moving_.erase(begin, end);
      return tell_moving();
    }
    case Kind::refused:
      throw LinkLost("the broker did not take a message");
    case Kind::cancelled:
      if (std::ranges::find(unread_, event.text) == unread_.end()) unread_.push_back(event.text);
      return consumer_->fails(
          fmt::format("the broker cancelled the consumer of {}: the queue was deleted, or its node "
                      "is gone",
                      fmt::join(unread_, ", ")));
    case Kind::blocked:
      publish_at_ = steady_clock::now() + kAlarmPause;
      throw LinkLost("the broker is in alarm and reads no acknowledgements");
    default:
      return;
  }
}

void RabbitOut::deliver(AmqpSession& session, AmqpSession::Event& event) {
  if (stopping_) return session.give_back(event.tag);
  Delivery delivery{std::move(event.body), event.attempts};
  if (event.attempts == 0 && event.hold_ms != 0) compare_delay(event.hold_ms);
  const auto now = steady_clock::now();
  constexpr std::int64_t kLongest = milliseconds(std::chrono::hours(24)).count();
  const milliseconds longest(std::clamp<std::int64_t>(event.hold_ms, 0, kLongest));
  const auto due = std::min(link_->clock().when(event.due_ms), now + longest);
  if (due <= now) return hand_over(session, event.tag, std::move(delivery));
  hold(event.tag, std::move(delivery), std::chrono::ceil<milliseconds>(due - now));
}

void RabbitOut::compare_delay(std::int64_t hold_ms) {
  if (hold_ms == other_delay_ms_ || hold_ms == milliseconds_of(options_.delay)) return;
  other_delay_ms_ = hold_ms;
  using Seconds = std::chrono::duration<double>;
  context_->warning(fmt::format(
      "a receiver holds tickets for {} s, and this stage's 'delay' is {} s: set both to the same; "
      "the receiver's applies",
      Seconds(milliseconds(hold_ms)).count(), Seconds(options_.delay).count()));
}

milliseconds RabbitOut::hand_over_due(AmqpSession& session) {
  const auto now = steady_clock::now();
  while (!held_.empty() && held_.begin()->first <= now) {
    auto [tag, delivery] = std::move(held_.begin()->second);
    held_.erase(held_.begin());
    hand_over(session, tag, std::move(delivery));
  }
  if (held_.empty()) return Link::kPatience;
  return std::chrono::ceil<milliseconds>(held_.begin()->first - now);
}

void RabbitOut::hand_over(AmqpSession& session, std::uint64_t tag, Delivery delivery) {
  messages_->add();
  try {
    Batch<Ticket> batch = decode_tickets(std::as_bytes(std::span(delivery.body)));
    tickets_->add(batch.items.size());
    batch.receipt = receipt_for(tag);
    deliveries_.emplace(tag, std::move(delivery));
    const std::lock_guard lock(inbox_->mutex);
    inbox_->arrived.push_back(std::move(batch));
    inbox_->changed.notify_all();
  } catch (const Rejected& error) {
    if (steady_clock::now() < publish_at_) return hold(tag, std::move(delivery), kAlarmPause);
    dead_->add();
    context_->error(fmt::format("a message of {} bytes goes to '{}': {}", delivery.body.size(),
                                topology_.dead, error.what()));
    move(session, tag, topology_.dead, delivery.body,
         {{kAttempts, delivery.attempts, {}}, {kReason, 0, error.what()}});
  }
}

milliseconds RabbitOut::turn(AmqpSession& session) {
  if (stopping_ && !cancelled_) {
    cancelled_ = true;
    for (const std::string& queue : topology_.taken()) session.cancel(queue);
    for (const auto& [due, held] : held_) session.give_back(held.first);
    held_.clear();
  }
  if (!unread_.empty() && !stopping_) {
    topology_.declare(session);
    consume_again(session);
  }
  if (publish_at_ != steady_clock::time_point() && steady_clock::now() >= publish_at_) {
    publish_at_ = {};
    if (!link_->alarm_is_over()) publish_at_ = steady_clock::now() + kAlarmPause;
  }
  const milliseconds next = hand_over_due(session);
  std::vector<Resolved> resolved;
  {
    const std::lock_guard lock(inbox_->mutex);
    resolved.swap(inbox_->resolved);
  }
  for (const Resolved& one : resolved) settle(session, one);
  if (!resolved.empty()) inbox_->changed.notify_all();
  return next;
}

void RabbitOut::settle(AmqpSession& session, const Resolved& resolved) {
  if (resolved.connection != connection_) return;
  const auto found = deliveries_.find(resolved.tag);
  if (found == deliveries_.end()) return;
  Delivery delivery = std::move(found->second);
  deliveries_.erase(found);
  if (resolved.outcome == Outcome::done) {
    session.acknowledge(resolved.tag);
    acknowledged_->add();
    return;
  }
  // At the end of a run what was not worked on is no failure of the message.
  if (stopping_) return session.give_back(resolved.tag);
  const std::uint32_t attempts = delivery.attempts + 1;
  if (attempts < options_.max_attempts) {
    retried_->add();
    const auto& [queue, pause] = topology_.retry(attempts);
    if (steady_clock::now() < publish_at_) {
      delivery.attempts = attempts;
      return hold(resolved.tag, std::move(delivery), milliseconds(pause));
    }
    move(session, resolved.tag, queue, delivery.body,
         {{kAttempts, attempts, {}},
          {kDue, link_->clock().at(steady_clock::now() + milliseconds(pause)), {}},
          {kHold, pause, {}}});
  } else if (steady_clock::now() < publish_at_) {
    hold(resolved.tag, std::move(delivery), kAlarmPause);
  } else {
    dead_->add();
    context_->error(
        fmt::format("a message goes to '{}' after {} attempts; its sessions stay "
                    "unclassified",
                    topology_.dead, attempts));
    move(session, resolved.tag, topology_.dead, delivery.body,
         {{kAttempts, attempts, {}}, {kReason, 0, "failed too often"}});
  }
}

void RabbitOut::hold(std::uint64_t tag, Delivery delivery, milliseconds pause) {
  held_.emplace(steady_clock::now() + pause, std::pair(tag, std::move(delivery)));
}

void RabbitOut::move(AmqpSession& session, std::uint64_t tag, const std::string& queue,
                     std::string_view body, const std::vector<AmqpSession::Argument>& headers) {
  moving_.emplace(session.publish("", queue, body, headers), tag);
  tell_moving();
}

}  // namespace millrace
