#pragma once

/// A cluster, and verdicts to write to it.

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/error.h"
#include "millrace/testing.h"

#include "sink_kafka.h"
#include "support/kafka_cluster.h"

namespace millrace {

class SinkKafkaTest : public ::testing::Test {
 protected:
  [[nodiscard]] KafkaOptions options() const {
    KafkaOptions options;
    options.brokers = cluster_.brokers();
    options.topic = "sessions";
    options.wait = 20s;
    return options;
  }

  /// The id of the session with this number in it.
  static SessionId id(std::uint32_t number) {
    SessionId id{};
    id[14] = static_cast<std::uint8_t>(number >> 8U);
    id[15] = static_cast<std::uint8_t>(number);
    return id;
  }
  static Verdict verdict(std::uint32_t number, std::string_view label = "web") {
    Verdict verdict;
    verdict.session.id = id(number);
    verdict.session.key.protocol = 6;
    verdict.session.packets = number;
    verdict.label = label;
    verdict.model = "m";
    verdict.confidence = 0.5F;
    return verdict;
  }
  /// Numbers `first` to `last`.
  static std::vector<Verdict> verdicts(std::uint32_t first, std::uint32_t last) {
    std::vector<Verdict> list;
    for (std::uint32_t number = first; number <= last; ++number) list.push_back(verdict(number));
    return list;
  }
  [[nodiscard]] Batch<Verdict> batch(std::vector<Verdict> items) {
    Batch<Verdict> batch(std::move(items));
    batch.receipt = receipts_.make();
    return batch;
  }
  void write(SinkKafka& sink, std::vector<Verdict> items) {
    Batch<Verdict> made = batch(std::move(items));
    sink.write(made);
    made.receipt.done();  // as the host does with what the stage has left
  }
  /// As the host does it: again and again where that may help.
  static void flush(SinkKafka& sink) {
    EXPECT_TRUE(eventually([&] {
      try {
        sink.flush();
        return true;
      } catch (const Transient&) {
        return false;
      }
    }));
  }

  static std::string json(const Verdict& verdict) {
    std::string text;
    ItemTraits<Verdict>::describe(verdict, text);
    return text;
  }
  [[nodiscard]] std::vector<std::string> keys(int partitions = 1) const {
    std::vector<std::string> list;
    for (const auto& message : cluster_.content("sessions", partitions))
      list.push_back(message.key);
    return list;
  }
  static std::vector<std::string> keys_of(std::uint32_t first, std::uint32_t last) {
    std::vector<std::string> list;
    for (std::uint32_t number = first; number <= last; ++number) list.push_back(to_hex(id(number)));
    return list;
  }
  [[nodiscard]] bool logged(const std::string& part) const {
    const auto messages = context_.messages();
    return std::any_of(messages.begin(), messages.end(), [&](const auto& message) {
      return message.second.find(part) != std::string::npos;
    });
  }

  static constexpr std::int16_t kProduce = 0;  ///< number of that request in Kafka's protocol
  void next_answers(std::vector<rd_kafka_resp_err_t> errors,
                    std::int16_t request = kProduce) const {
    rd_kafka_mock_push_request_errors_array(cluster_.get(), request, errors.size(), errors.data());
  }

  MockCluster cluster_;
  testing::TestContext context_;
  testing::WatchedReceipt receipts_;
};

}  // namespace millrace
