#include "publisher.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

using std::chrono::steady_clock;

void RabbitIn::open(Context& context) {
  context_ = &context;
  messages_ = &context.counter("messages");
  tickets_ = &context.counter("tickets");
  delayed_ = &context.counter("delayed");
  confirmed_ = &context.counter("confirmed");
  republished_ = &context.counter("republished");
  nacked_ = &context.counter("nacked");
  link_ = std::make_unique<Link>(options_, context, static_cast<Link::Work&>(*this));
  link_->start();
}

void RabbitIn::write(Batch<Ticket>& in) {
  if (in.items.empty()) return;
  std::vector<Ticket> now;
  std::vector<Ticket> later;
  for (const Ticket& ticket : in.items) {
    (ticket.why == Due::timeout ? later : now).push_back(ticket);
  }
  const auto messages = [this](std::size_t tickets) {
    return (tickets + options_.bundle - 1) / options_.bundle;
  };
  wait_for_room(messages(now.size()) + messages(later.size()));
  std::deque<Message> made;
  bundle(now, false, in.receipt, made);
  bundle(later, true, in.receipt, made);
  messages_->add(made.size());
  tickets_->add(in.items.size());
  delayed_->add(later.size());
  {
    const std::lock_guard lock(mutex_);
    for (Message& message : made) waiting_.push_back(std::move(message));
  }
  // The messages have shares of their own; this one ends when they are handed over.
  link_->wake();
}

void RabbitIn::bundle(std::span<const Ticket> tickets, bool delayed, const Receipt& receipt,
                      std::deque<Message>& into) const {
  const auto due = steady_clock::now() + options_.delay;
  while (!tickets.empty()) {
    const auto some = tickets.first(std::min<std::size_t>(options_.bundle, tickets.size()));
    into.push_back({encode(some), delayed, due, some.size(), receipt.fork()});
    tickets = tickets.subspan(some.size());
  }
}

template <class Condition>
void RabbitIn::wait_until(std::unique_lock<std::mutex>& lock, Condition condition) {
  constexpr std::chrono::milliseconds kPatience{100};
  std::uint64_t seen = progress_;
  auto since = steady_clock::now();
  while (!settled_.wait_for(lock, kPatience, condition)) {
    if (const auto why = link_->down()) throw Transient(*why);
    if (link_->blocked())
      throw Transient("the broker takes no messages at present (resource alarm)");
    if (refusing_) throw Transient("the broker takes no messages into a queue at present");
    const auto now = steady_clock::now();
    if (seen != progress_) {
      seen = progress_;
      since = now;
    } else if (now - since >= options_.timeout) {
      throw Transient("the broker confirms nothing");
    }
  }
}

void RabbitIn::wait_for_room(std::size_t count) {
  std::unique_lock lock(mutex_);
  wait_until(lock, [&] {
    const std::size_t held = waiting_.size() + unconfirmed_.size();
    // A batch that is larger than the window goes when nothing else is there.
    return held == 0 || held + count <= options_.window;
  });
}

void RabbitIn::flush() {
  std::unique_lock lock(mutex_);
  wait_until(lock, [this] { return waiting_.empty() && unconfirmed_.empty(); });
}

void RabbitIn::close() noexcept {
  if (link_) link_->stop();
  // What is left fails, so that whoever sent it knows.
  const std::lock_guard lock(mutex_);
  waiting_.clear();
  unconfirmed_.clear();
}

std::uint64_t RabbitIn::publish(AmqpSession& session, const Message& message) const {
  if (!message.delayed) return session.publish("", topology_.ready, message.body);
  std::vector<AmqpSession::Argument> headers = topology_.delay_headers;
  if (topology_.tell_due) headers.push_back({kDue, link_->clock().at(message.due), {}});
  headers.push_back({kHold, milliseconds_of(options_.delay), {}});
  return session.publish(topology_.delay_exchange, topology_.delay_key, message.body, headers,
                         topology_.delay_unroutable);
}

std::chrono::milliseconds RabbitIn::turn(AmqpSession& session) {
  while (true) {
    std::unique_lock lock(mutex_);
    if (waiting_.empty() || link_->blocked() || steady_clock::now() < hold_until_) {
      return Link::kPatience;
    }
    const Message& next = waiting_.front();
    // Only this thread takes messages away, so this one stays where it is.
    lock.unlock();
    const std::uint64_t tag = publish(session, next);
    lock.lock();
    unconfirmed_.emplace(tag, std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void RabbitIn::event(AmqpSession& /*session*/, AmqpSession::Event& event) {
  using Kind = AmqpSession::Event::Kind;
  if (event.kind == Kind::confirmed) return confirm(event);
  if (event.kind == Kind::refused) return refused(event);
}

std::vector<RabbitIn::Message> RabbitIn::take(const AmqpSession::Event& event) {
  std::vector<Message> taken;
  const auto end = unconfirmed_.upper_bound(event.tag);
  const auto begin = event.multiple ? unconfirmed_.begin() : unconfirmed_.find(event.tag);
  if (begin == unconfirmed_.end()) return taken;
  for (auto it = begin; it != end; ++it) taken.push_back(std::move(it->second));
  unconfirmed_.erase(begin, end);
  return taken;
}

void RabbitIn::confirm(const AmqpSession::Event& event) {
  std::vector<Message> done;
  {
    const std::lock_guard lock(mutex_);
    done = take(event);
    progress_ += done.size();
    refusing_ = false;
  }
  confirmed_->add(done.size());
  // Outside the lock: this may run the source's code.
  for (Message& message : done) message.receipt.done();
  settled_.notify_all();
}

void RabbitIn::refused(const AmqpSession::Event& event) {
  constexpr std::chrono::milliseconds kPause{500};
  const std::lock_guard lock(mutex_);
  std::vector<Message> again = take(event);
  nacked_->add(again.size());
  republished_->add(again.size());
  for (auto it = again.rbegin(); it != again.rend(); ++it) waiting_.push_front(std::move(*it));
  hold_until_ = steady_clock::now() + kPause;
  if (refusing_) return;
  refusing_ = true;
  context_->warning("the broker does not take a message into its queue; publishing it again");
}

void RabbitIn::lost() {
  const std::lock_guard lock(mutex_);
  republished_->add(unconfirmed_.size());
  // In the old order, before what was not published yet.
  for (auto it = unconfirmed_.rbegin(); it != unconfirmed_.rend(); ++it) {
    waiting_.push_front(std::move(it->second));
  }
  unconfirmed_.clear();
}

}  // namespace millrace
