#include "call_window.h"

#include <algorithm>

#include <hiredis/hiredis.h>

namespace millrace {

void CallWindow::mark(Call& call, bool first) {
  if (call.first_mark != Call::kNoMark) call.bytes[call.first_mark] = first ? '1' : '0';
}

void CallWindow::ready() {
  if (connection_.is_open()) return;
  connection_.open();
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    const bool first = std::none_of(
        calls_.begin(), calls_.begin() + static_cast<std::ptrdiff_t>(i), [&](const Call& before) {
          return before.first_mark != Call::kNoMark && before.bucket == calls_[i].bucket;
        });
    mark(calls_[i], first);
    connection_.send(calls_[i].bytes);
  }
}

void CallWindow::push(Call call) {
  mark(call, std::ranges::none_of(calls_, [&](const Call& before) {
         return before.first_mark != Call::kNoMark && before.bucket == call.bucket;
       }));
  calls_.push_back(std::move(call));
  if (!connection_.is_open()) return;
  try {
    connection_.send(calls_.back().bytes);
  } catch (const Transient&) {
    // The connection is closed now, and the call waits for `ready`.
  }
}

std::pair<Call, RedisReply> CallWindow::pop() {
  RedisReply reply;
  for (std::size_t i = 0; i <= calls_.front().commands_before; ++i) {
    reply = connection_.read();
    if (is_error(*reply)) {
      // What follows was refused too; it is sent again in order.
      connection_.close();
      connection_.raise(*reply);
    }
  }
  // Of a transaction.
  for (std::size_t i = 0; i < reply->elements; ++i) {
    // The script sets aside what is of a wrong type.
    if (!is_error(*reply->element[i]) || is_wrong_type(*reply->element[i])) continue;
    connection_.close();
    connection_.raise(*reply->element[i]);
  }
  std::pair<Call, RedisReply> answered(std::move(calls_.front()), std::move(reply));
  calls_.pop_front();
  return answered;
}

RedisReply CallWindow::ask(const RedisCommand& command) {
  RedisReply reply = connection_.call(command);
  if (is_error(*reply)) connection_.raise(*reply);
  return reply;
}

}  // namespace millrace
