#include "broker_clock.h"

#include <algorithm>
#include <random>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <poll.h>

#include "session.h"

namespace millrace {

namespace {

using std::chrono::ceil;
using std::chrono::floor;
using std::chrono::steady_clock;
using Milliseconds = BrokerClock::Milliseconds;

/// The stamp of one message that the broker moves.
std::chrono::seconds stamp(AmqpSession& session, const std::string& queue, Duration patience) {
  session.publish("", queue, "clock", {}, AmqpSession::Unroutable::is_dropped);
  const auto give_up = steady_clock::now() + patience;
  while (true) {
    const AmqpSession::Event event = session.next();
    if (event.kind == AmqpSession::Event::Kind::delivered) {
      session.acknowledge(event.tag);
      if (event.died_at == 0) throw LinkLost("the broker does not stamp messages that it moves");
      return std::chrono::seconds(event.died_at);
    }
    if (event.kind == AmqpSession::Event::Kind::blocked) {
      throw LinkLost("the broker takes no messages");
    }
    if (event.kind != AmqpSession::Event::Kind::none) continue;
    const auto left = ceil<Milliseconds>(give_up - steady_clock::now());
    if (left <= Milliseconds(0)) throw LinkLost("the broker does not answer");
    pollfd wait{session.descriptor(), POLLIN, 0};
    ::poll(&wait, 1, static_cast<int>(left.count()));
  }
}

}  // namespace

Milliseconds wall_clock() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return floor<Milliseconds>(wall - steady_clock::now().time_since_epoch());
}

BrokerClock::BrokerClock() : low_(wall_clock()), high_(low_) {}

void BrokerClock::add(Steady sent, Steady received, std::chrono::seconds stamp) {
  const Milliseconds low = stamp - ceil<Milliseconds>(received.time_since_epoch());
  const Milliseconds high =
      stamp + std::chrono::seconds(1) - floor<Milliseconds>(sent.time_since_epoch());
  // Where stamps contradict one another, the clock was set in between.
  if (!known_ || low > high_ || high < low_) {
    low_ = low;
    high_ = high;
  } else {
    low_ = std::max(low_, low);
    high_ = std::min(high_, high);
  }
  known_ = true;
}

Milliseconds BrokerClock::compare(Milliseconds wall) {
  if (wall < low_) return wall - low_;
  if (wall > high_) return wall - high_;
  low_ = high_ = wall;
  return Milliseconds(0);
}

std::int64_t BrokerClock::at(Steady time) const {
  return (ceil<Milliseconds>(time.time_since_epoch()) + high_).count();
}

BrokerClock::Steady BrokerClock::when(std::int64_t epoch_ms) const {
  // Far from any overflow, whatever a header says.
  constexpr std::int64_t kFar = std::int64_t{1} << 42U;
  return Steady(Milliseconds(std::clamp(epoch_ms, -kFar, kFar)) - low_);
}

BrokerClock measure_clock(const RabbitOptions& options, const std::function<bool()>& stop,
                          Milliseconds& ahead) {
  constexpr int kStamps = 11;
  constexpr Milliseconds kPause{100};
  constexpr Milliseconds kExact{150};
  AmqpSession session(options);
  std::random_device random;
  const std::string in = fmt::format("{}.clock.{:08x}", options.name, random());
  const std::string out = in + ".out";
  session.declare_temporary_queue(out, {});
  session.bind(out, "amq.direct", out);
  session.declare_temporary_queue(in, {{"x-message-ttl", 0, {}},
                                       {"x-dead-letter-exchange", 0, "amq.direct"},
                                       {"x-dead-letter-routing-key", 0, out}});
  session.consume(out, 1);
  BrokerClock clock;
  for (int i = 0; i < kStamps && !stop(); ++i) {
    if (i != 0) std::this_thread::sleep_for(kPause);
    const auto sent = steady_clock::now();
    const auto time = stamp(session, in, options.timeout);
    clock.add(sent, steady_clock::now(), time);
    ahead = clock.compare(wall_clock());
    if (ahead == Milliseconds(0) || clock.latest() - clock.earliest() <= kExact) break;
  }
  session.close();
  return clock;
}

}  // namespace millrace
