#include "settler.h"

#include <algorithm>

#include <hiredis/hiredis.h>

#include "scripts.h"

namespace millrace {

namespace {

using std::string_view;
using SteadyClock = std::chrono::steady_clock;

constexpr std::size_t kMostAtOnce = 64;
constexpr auto kPause = std::chrono::milliseconds(100);

}  // namespace

void Settler::Desk::hand_in(Settlement settlement) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) waiting_.push_back(std::move(settlement));
  }
  changed_.notify_one();
}

void Settler::Desk::hold_back(Receipt ticket, SteadyClock::time_point when) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) held_.emplace_back(when, std::move(ticket));
  }
  changed_.notify_one();
}

Settler::Settler(const RedisAddress& address, RedisTimeouts timeouts, std::vector<KeyNames> names,
                 Context& context, ServerWatch& watch)
    : connection_(address, timeouts, &context.counter("reconnects")),
      names_(std::move(names)),
      watch_(watch),
      condition_(context.condition("settle")),
      settled_(context.counter("settled")),
      lost_(context.counter("lease-lost")),
      returned_(context.counter("returned")),
      thread_([this] { run(); }) {}

void Settler::stop(Duration patience) noexcept {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(desk_->mutex_);
    desk_->stopping_ = true;
    deadline_ = SteadyClock::now() + patience;
  }
  desk_->changed_.notify_one();
  thread_.join();
  std::deque<Settlement> waiting;
  decltype(desk_->held_) held;
  {
    const std::lock_guard lock(desk_->mutex_);
    desk_->closed_ = true;
    waiting.swap(desk_->waiting_);
    held.swap(desk_->held_);
  }
  // Their tickets fail here, outside the lock.
}

void Settler::fail_held(std::unique_lock<std::mutex>& lock) {
  auto& held = desk_->held_;
  const auto now = SteadyClock::now();
  const auto due =
      std::partition(held.begin(), held.end(), [&](const auto& one) { return one.first > now; });
  std::vector<Receipt> failing;
  for (auto one = due; one != held.end(); ++one) failing.push_back(std::move(one->second));
  held.erase(due, held.end());
  if (failing.empty()) return;
  lock.unlock();
  failing.clear();
  lock.lock();
}

void Settler::run() noexcept {
  Desk& desk = *desk_;
  std::deque<Settlement> work;
  std::unique_lock lock(desk.mutex_);
  while (true) {
    fail_held(lock);
    while (!desk.waiting_.empty() && work.size() < kMostAtOnce) {
      work.push_back(std::move(desk.waiting_.front()));
      desk.waiting_.pop_front();
    }
    if (work.empty()) {
      if (desk.stopping_) return;
      auto next = SteadyClock::now() + std::chrono::hours(1);
      for (const auto& one : desk.held_) next = std::min(next, one.first);
      desk.changed_.wait_until(lock, next);
      continue;
    }
    lock.unlock();
    std::string trouble;
    try {
      settle(work);
      condition_.holds();
    } catch (const std::exception& error) {
      trouble = error.what();
      connection_.close();
      condition_.fails("leases cannot be ended, trying again: " + trouble);
    }
    lock.lock();
    if (trouble.empty()) continue;
    if (desk.stopping_ && SteadyClock::now() >= deadline_) {
      lock.unlock();
      work.clear();  // the tickets fail, the leases run out
      return;
    }
    desk.changed_.wait_for(lock, kPause);
  }
}

void Settler::settle(std::deque<Settlement>& work) {
  connection_.open();
  RedisCommand command;
  for (const Settlement& one : work) {
    const KeyNames& names = names_[one.bucket];
    command.begin(3 + 1 + 3 + one.sessions.size());
    command.add(string_view("EVAL"));
    command.add(settle_script());
    command.add(string_view("1"));
    command.add(string_view(names.outbox()));
    command.add(string_view(names.tag()));
    command.add(string_view(one.token));
    command.add(string_view(one.outcome == Outcome::done ? "1" : "0"));
    for (const std::string& session : one.sessions) command.add(string_view(session));
  }
  connection_.send(command.bytes());
  while (!work.empty()) {
    const RedisReply reply = connection_.read();
    if (is_error(*reply)) connection_.raise(*reply);
    Settlement one = std::move(work.front());
    work.pop_front();
    if (reply->elements == 2) {
      lost_.add(static_cast<std::uint64_t>(reply->element[0]->integer));
      watch_.report_set_aside(static_cast<std::uint64_t>(reply->element[1]->integer));
    }
    (one.outcome == Outcome::done ? settled_ : returned_).add(one.sessions.size());
    one.ticket.resolve(one.outcome);
  }
}

}  // namespace millrace
