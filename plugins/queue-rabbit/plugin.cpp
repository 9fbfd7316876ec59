#include "millrace/plugin.h"

#include <fmt/format.h>

#include "consumer.h"
#include "publisher.h"
#include "rabbit_url.h"

namespace millrace {

namespace {

void check_rabbit_options(const RabbitOptions& options, Findings& findings) {
  RabbitUrl url;
  try {
    url = parse_rabbit_url(options.server);
  } catch (const std::exception& error) {
    findings.add("server", error.what());
    return;
  }
  if (options.certificate.empty() != options.key.empty()) {
    findings.add(options.key.empty() ? "certificate" : "key",
                 "'certificate' and 'key' go together");
  }
  if (!url.tls && (!options.ca.empty() || !options.certificate.empty())) {
    findings.add("server", "'ca' and 'certificate' need amqps://");
  }
  // A broker takes a message back that is unacknowledged for 30 minutes (consumer_timeout).
  if (options.delay_by == DelayBy::hold && options.delay > std::chrono::minutes(15)) {
    findings.add("delay",
                 "delay_by = \"hold\" holds tickets for 15min at most; \"ttl\" takes longer");
  }
  // AMQP 0-9-1 names are short strings; the longest suffix is that of the delay queue.
  constexpr std::size_t kLongest = 200;
  if (options.name.empty() || options.name.size() > kLongest) {
    findings.add("name", fmt::format("a name has 1 to {} bytes", kLongest));
  }
}

}  // namespace

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "queue-rabbit", MILLRACE_VERSION,
    queue<RabbitIn, RabbitOut, RabbitOptions>(
        "queue-rabbit", "Hands tickets over through RabbitMQ, those of new sessions delayed",
        option<&RabbitOptions::server>("server",
                                       "amqp://user:password@host:port/vhost, or amqps://...; "
                                       "special characters are percent-encoded")
            .secret(),
        option<&RabbitOptions::name>(
            "name", "the queue, and the beginning of the names of those beside it"),
        option<&RabbitOptions::delay>(
            "delay", "how long the ticket of a session that has begun is held back")
            .between(std::chrono::milliseconds(1), std::chrono::hours(24)),
        option<&RabbitOptions::delay_by>(
            "delay_by",
            "hold: whoever takes a ticket holds it, unacknowledged, until it is due; ttl: a queue "
            "with a message time-out and a dead-letter exchange, which may lose what is on its way "
            "when the broker dies; x-delayed-message: an exchange of the broker's plugin of that "
            "name, which may lose tickets even when the broker is stopped")
            .choices({{"hold", DelayBy::hold},
                      {"ttl", DelayBy::ttl},
                      {"x-delayed-message", DelayBy::x_delayed_message}}),
        option<&RabbitOptions::bundle>(
            "bundle",
            "tickets in one message at most; fewer spread better over analysers, more cost the "
            "broker less")
            .between(1, 4096),
        option<&RabbitOptions::window>(
            "window", "messages that wait for the broker's confirm at most; then the input waits")
            .between(1, 65535),
        option<&RabbitOptions::prefetch>(
            "prefetch",
            "messages of each queue that an analyser is given before it has acknowledged earlier "
            "ones; times 'bundle' these are the sessions it has under way, which should be several "
            "times the store's batch")
            .between(1, 65535),
        option<&RabbitOptions::max_attempts>(
            "max_attempts",
            "how often a message is given out before it goes to the dead-letter queue NAME.dead")
            .between(1, 1000000),
        option<&RabbitOptions::retry_pause>("retry_pause",
                                            "how long a message whose work failed is held back; "
                                            "twice as long each time, up to 32 times")
            .between(std::chrono::milliseconds(1), std::chrono::seconds(20)),
        option<&RabbitOptions::heartbeat>(
            "heartbeat", "a broker that is silent for twice as long is given up; whole seconds")
            .between(std::chrono::seconds(1), std::chrono::minutes(10)),
        option<&RabbitOptions::timeout>("timeout", "for connecting and for the broker's answers")
            .between(std::chrono::milliseconds(10), std::chrono::minutes(10)),
        option<&RabbitOptions::check_queues>(
            "check_queues",
            "interval at which the queues are checked: a missing one is declared again, and one "
            "without a consumer is consumed again")
            .between(std::chrono::milliseconds(10), std::chrono::hours(24)),
        option<&RabbitOptions::wait>("wait",
                                     "how long the start waits for a broker that cannot be reached")
            .between(Duration(0), std::chrono::hours(24)),
        option<&RabbitOptions::finish>(
            "finish", "how long an end waits for what was given out; the rest goes back")
            .between(Duration(0), std::chrono::hours(1)),
        option<&RabbitOptions::ca>(
            "ca", "amqps: file with the certificates to trust (PEM); none: those of the system"),
        option<&RabbitOptions::certificate>("certificate", "amqps: our own certificate (PEM)"),
        option<&RabbitOptions::key>("key", "amqps: the key of our own certificate (PEM)"),
        option<&RabbitOptions::verify>(
            "verify", "amqps: whether the broker's certificate and host name are checked"))
        .checked(&check_rabbit_options))
