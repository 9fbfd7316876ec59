#include "millrace/plugin.h"

#include "source_canal.h"

using namespace millrace;

MILLRACE_PLUGIN(
    "source-canal", MILLRACE_VERSION,
    source<SourceCanal, CanalOptions>(
        "source-canal", "Changes of table rows that Canal, Debezium or Maxwell write to Kafka",
        option<&CanalOptions::brokers>("brokers", "host:port of some of the brokers, with commas"),
        option<&CanalOptions::topics>(
            "topics", "what to read; a name that begins with ^ is a regular expression")
            .required(),
        option<&CanalOptions::group>(
            "group", "consumer group: its members share the partitions, and go on where it was"),
        option<&CanalOptions::format>("format",
                                      "canal: Canal's flat messages in JSON; debezium: envelopes "
                                      "with or without their schema; maxwell: Maxwell's JSON")
            .choices({{"canal", MessageFormat::canal},
                      {"debezium", MessageFormat::debezium},
                      {"maxwell", MessageFormat::maxwell}}),
        option<&CanalOptions::tables>("tables",
                                      "the only tables to take, each as database.table; none: all"),
        option<&CanalOptions::start>("start",
                                     "where to begin in a partition for which the group has no "
                                     "offset, or one that is not there any more")
            .choices({{"earliest", StartAt::earliest}, {"latest", StartAt::latest}}),
        option<&CanalOptions::on_bad>(
            "on_bad",
            "at a message that cannot be read: skip counts it, logs where it is, and goes on; stop "
            "ends the pipeline, and the next start begins with that message")
            .choices({{"skip", OnBad::skip}, {"stop", OnBad::stop}}),
        option<&CanalOptions::batch>(
            "batch",
            "changes given on together at most, but for the rows of one message, which "
            "stay together")
            .between(1, 65536),
        option<&CanalOptions::window>(
            "window", "batches given on and not yet delivered at most; then nothing is read")
            .between(1, 65536),
        option<&CanalOptions::retry_pause>(
            "retry_pause", "how long a partition rests before a batch that failed is read again")
            .between(0ms, 1h),
        option<&CanalOptions::commit_every>("commit_every", "time between two commits of offsets")
            .between(0ms, 1h),
        option<&CanalOptions::wait>(
            "wait",
            "how long the start waits for a broker that cannot be reached, or for a topic "
            "that is not there")
            .between(0ms, 24h),
        option<&CanalOptions::finish>(
            "finish",
            "how long an end waits for the delivery of what was given on, and then for "
            "the brokers")
            .between(0ms, 1h),
        option<&CanalOptions::kafka>(
            "kafka", "further properties of librdkafka: { \"security.protocol\" = \"ssl\" }")
            .secret())
        .checked(&check_canal_options))
