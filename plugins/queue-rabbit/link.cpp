#include "link.h"

#include <algorithm>
#include <csignal>
#include <optional>
#include <random>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "millrace/error.h"

#include "rabbit_url.h"

namespace millrace {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// "received the value '500' of type 'long'", as the broker says it.
std::string value_of(const std::string& text) {
  static constexpr std::string_view kValue = "the value '";
  if (!text.starts_with(kValue)) return text;
  return text.substr(kValue.size(), text.rfind("' of type") - kValue.size());
}

/// Codes that no waiting helps against.
bool is_final(const Refused& refused) {
  constexpr int kAccessRefused = 403;
  constexpr int kOtherArguments = 406;
  constexpr int kCommandInvalid = 503;  // an exchange type that the broker does not have
  constexpr int kNotAllowed = 530;
  const int code = refused.code();
  return code == kAccessRefused || code == kOtherArguments || code == kCommandInvalid ||
         code == kNotAllowed;
}

/// The text up to `end`, which is cut off the front of `rest` together with `end`; nothing if there
/// is no `end`.
std::optional<std::string> cut_to(std::string_view& rest, std::string_view end) {
  const std::size_t at = rest.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  std::string text(rest.substr(0, at));
  rest.remove_prefix(at + end.size());
  return text;
}

/// "inequivalent arg 'x' for queue 'q' in vhost '/': received ... but current is ..."
std::string explain_difference(const std::string& text) {
  constexpr const char* kAdvice =
      "delete it in the broker once it is empty, or choose another name";
  std::string_view rest = text;
  const auto begin = cut_to(rest, "inequivalent arg '");
  const auto argument = cut_to(rest, "' for ");
  const auto kind = cut_to(rest, " '");
  const auto name = cut_to(rest, "' in vhost '");
  const auto vhost = cut_to(rest, "': received ");
  const auto ours = cut_to(rest, " but current is ");
  // The broker cuts long texts off; then they are given on as they are.
  if (!begin || !argument || !kind || !name || !vhost || !ours) {
    return fmt::format("the broker has a queue or exchange with other arguments ({}); {}", text,
                       kAdvice);
  }
  return fmt::format("the broker has the {} '{}' with {} = {}, where this stage has {}; {}", *kind,
                     *name, *argument, value_of(std::string(rest)), value_of(*ours), kAdvice);
}

ConfigError explained(const Refused& refused, const RabbitOptions& options) {
  const std::string text = refused.what();
  if (text.find("inequivalent arg") != std::string::npos) {
    return {"name", explain_difference(text)};
  }
  if (options.delay_by == DelayBy::x_delayed_message &&
      text.find("x-delayed-message") != std::string::npos) {
    return {"delay_by", fmt::format("the broker lacks the delayed-message plugin ({}); where it is "
                                    "installed, `rabbitmq-plugins enable "
                                    "rabbitmq_delayed_message_exchange` enables it; "
                                    "delay_by = \"hold\" needs none",
                                    text)};
  }
  return {"server", text};
}

milliseconds jitter(int attempt) {
  constexpr int kFirst = 100;
  constexpr int kMost = 3000;
  const int bound = std::min(kMost, kFirst << std::min(attempt, 8));
  thread_local std::minstd_rand random(std::random_device{}());
  return milliseconds(std::uniform_int_distribution(kFirst / 2, bound)(random));
}

constexpr std::chrono::seconds kStable{10};

}  // namespace

Link::Link(const RabbitOptions& options, Context& context, Work& work)
    : options_(options),
      topology_(options),
      context_(context),
      work_(work),
      reconnects_(context.counter("reconnects")),
      blocks_(context.counter("blocked")),
      connection_(context.condition("connection")),
      publishing_(context.condition("publishing")),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Link::~Link() {
  stop();
  ::close(wake_fd_);
}

void Link::wake() noexcept { ::eventfd_write(wake_fd_, 1); }

void Link::stop() noexcept {
  constexpr std::chrono::seconds kGrace{2};
  {
    std::unique_lock lock(mutex_);
    stop_ = true;
    stopping_.notify_all();
    wake();
    const bool ended = ended_.wait_for(lock, kGrace, [this] { return !running_; });
    // A write to a broker that reads nothing would go on as long as heartbeats come.
    if (!ended && descriptor_ >= 0) ::shutdown(descriptor_, SHUT_RDWR);
  }
  if (thread_.joinable()) thread_.join();
}

std::optional<std::string> Link::down() const {
  const std::lock_guard lock(mutex_);
  return down_;
}

void Link::set_up(const AmqpSession& session) {
  const std::lock_guard lock(mutex_);
  down_.reset();
  descriptor_ = session.descriptor();
}

void Link::set_down(const std::string& why) {
  const std::lock_guard lock(mutex_);
  down_ = why;
}

bool Link::pause(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stopping_.wait_for(lock, time, [this] { return stop_.load(); });
}

std::unique_ptr<AmqpSession> Link::connect() {
  auto session = std::make_unique<AmqpSession>(options_);
  topology_.declare(*session);
  set_clock();
  return session;
}

bool Link::set_clock() {
  using Seconds = std::chrono::duration<double>;
  milliseconds ahead{0};
  try {
    clock_ = measure_clock(
        options_, [this] { return stop_.load(); }, ahead);
    unmeasured_ = false;
  } catch (const LinkLost& error) {
    // What was measured before is better than nothing.
    if (!std::exchange(unmeasured_, true)) {
      context_.warning(fmt::format("cannot measure the broker's clock: {}", error.what()));
    }
    return dynamic_cast<const Refused*>(&error) != nullptr;
  }
  // Stamps are of whole seconds.
  if (std::chrono::abs(ahead) <= std::chrono::seconds(1)) ahead = milliseconds(0);
  if (std::chrono::abs(ahead - ahead_) <= std::chrono::seconds(1)) return true;
  ahead_ = ahead;
  if (ahead == milliseconds(0)) {
    context_.info("this machine's clock agrees with the broker's again");
  } else {
    context_.warning(fmt::format(
        "this machine's clock is {:.1f} s {} the broker's; the broker's is used for the delay",
        Seconds(std::chrono::abs(ahead)).count(), ahead > milliseconds(0) ? "ahead of" : "behind"));
  }
  return true;
}

bool Link::alarm_is_over() {
  if (!set_clock()) return false;
  publishing_.holds();
  return true;
}

void Link::start() {
  try {
    (void)parse_rabbit_url(options_.server);
  } catch (const std::exception& error) {
    throw ConfigError("server", error.what());
  }
  const auto give_up = steady_clock::now() + options_.wait;
  std::unique_ptr<AmqpSession> session;
  for (int attempt = 0; !session; ++attempt) {
    try {
      session = connect();
    } catch (const Misconfigured& error) {
      throw ConfigError(error.option(), error.what());
    } catch (const Refused& refused) {
      if (is_final(refused)) throw explained(refused, options_);
      if (steady_clock::now() >= give_up) throw ConfigError("server", refused.what());
      pause(jitter(attempt));
    } catch (const LinkLost& lost) {
      if (steady_clock::now() >= give_up) throw ConfigError("server", lost.what());
      connection_.fails(lost.what());
      pause(jitter(attempt));
    }
  }
  connection_.holds();
  running_ = true;
  thread_ = std::thread([this, first = std::move(session)]() mutable { run(std::move(first)); });
}

void Link::run(std::unique_ptr<AmqpSession> session) noexcept {
  // Signals are the main thread's.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_setname_np(pthread_self(), "rabbit");
  for (int failures = 0; !stop_; ++failures) {
    auto up_since = steady_clock::time_point::max();
    try {
      if (!session) {
        session = connect();
        reconnects_.add();
      }
      set_up(*session);
      blocked_ = false;
      up_since = steady_clock::now();
      work_.connected(*session);
      serve(*session);
      session->close();
    } catch (const std::exception& error) {
      const bool came_up = up_since != steady_clock::time_point::max();
      unstable_ = came_up && steady_clock::now() - up_since < kStable;
      if (came_up && !unstable_) failures = 0;
      set_down(error.what());
      work_.lost();
      connection_.fails(error.what());
    }
    {
      const std::lock_guard lock(mutex_);
      descriptor_ = -1;  // before it is closed, as `stop` may use it
    }
    session.reset();
    if (!stop_) pause(jitter(failures));
  }
  const std::lock_guard lock(mutex_);
  running_ = false;
  ended_.notify_all();
}

void Link::serve(AmqpSession& session) {
  constexpr std::chrono::minutes kClockEvery{10};
  auto clock_at = steady_clock::now() + kClockEvery;
  auto check_at = steady_clock::now() + options_.check_queues;
  // A connection that breaks at once, again and again, does not work.
  const auto works_at = steady_clock::now() + (unstable_ ? kStable : std::chrono::seconds(0));
  while (!stop_) {
    for (AmqpSession::Event event = session.next(); event.kind != AmqpSession::Event::Kind::none;
         event = session.next()) {
      handle(session, event);
    }
    const auto now = steady_clock::now();
    if (now >= works_at) connection_.holds();
    // A broker that takes no messages reads no requests of this connection either.
    if (now >= check_at && !blocked_) {
      work_.checked(session, topology_.declare(session));
      check_at = now + options_.check_queues;
    }
    if (now >= clock_at && !blocked_) {
      set_clock();
      clock_at = now + kClockEvery;
    }
    const milliseconds wait = std::clamp(work_.turn(session), milliseconds(0), kPatience);
    pollfd waits[] = {{session.descriptor(), POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    ::poll(waits, 2, static_cast<int>(wait.count()));
    if (waits[1].revents != 0) {
      eventfd_t count = 0;
      ::eventfd_read(wake_fd_, &count);
    }
  }
}

void Link::handle(AmqpSession& session, AmqpSession::Event& event) {
  using Kind = AmqpSession::Event::Kind;
  switch (event.kind) {
    case Kind::blocked:
      blocked_ = true;
      blocks_.add();
      publishing_.fails(fmt::format("the broker takes no messages: {}", event.text));
      break;
    case Kind::unblocked:
      blocked_ = false;
      publishing_.holds();
      break;
    case Kind::confirmed:
      // The alarm may have ended while there was no connection.
      if (!blocked_) publishing_.holds();
      break;
    default:
      break;
  }
  work_.event(session, event);
}

}  // namespace millrace
