#pragma once

/// librdkafka's mock cluster in this process, a producer, and a source-canal in a thread.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "millrace/error.h"
#include "millrace/testing.h"

#include "source_canal.h"

namespace millrace {

/// Polls, so that a slow machine only takes longer.
inline bool eventually(const std::function<bool()>& holds, std::chrono::seconds patience = 60s) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

class MockCluster {
 public:
  MockCluster() {
    char reason[256];
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, [](const rd_kafka_t*, int, const char*, const char*) {});
    producer_.reset(rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason));
    cluster_.reset(rd_kafka_mock_cluster_new(producer_.get(), 1));
    rd_kafka_brokers_add(producer_.get(), brokers().c_str());
  }

  [[nodiscard]] std::string brokers() const {
    return rd_kafka_mock_cluster_bootstraps(cluster_.get());
  }
  [[nodiscard]] rd_kafka_mock_cluster_t* get() const { return cluster_.get(); }

  void topic(const std::string& name, int partitions = 1) const {
    rd_kafka_mock_topic_create(cluster_.get(), name.c_str(), partitions, 1);
  }
  /// Returns when the brokers have it.
  void produce(const std::string& name, const std::string& text, int partition = 0,
               bool tombstone = false) const {
    char* value = const_cast<char*>(text.data());
    rd_kafka_producev(producer_.get(), RD_KAFKA_V_TOPIC(name.c_str()),
                      RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY("k", 1),
                      RD_KAFKA_V_VALUE(tombstone ? nullptr : value, tombstone ? 0 : text.size()),
                      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    rd_kafka_flush(producer_.get(), 30000);
  }
  /// -1: none.
  [[nodiscard]] std::int64_t committed(const std::string& group, const std::string& name,
                                       int partition = 0) const {
    char reason[256];
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers().c_str(), reason, sizeof reason);
    rd_kafka_conf_set(conf, "group.id", group.c_str(), reason, sizeof reason);
    const Kafka<rd_kafka_t> asker(rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason));
    const Kafka<rd_kafka_topic_partition_list_t> list(rd_kafka_topic_partition_list_new(1));
    rd_kafka_topic_partition_list_add(list.get(), name.c_str(), partition);
    if (rd_kafka_committed(asker.get(), list.get(), 10000) != RD_KAFKA_RESP_ERR_NO_ERROR) return -2;
    return std::max<std::int64_t>(list->elems[0].offset, -1);
  }

 private:
  struct DeleteCluster {
    void operator()(rd_kafka_mock_cluster_t* cluster) const {
      rd_kafka_mock_cluster_destroy(cluster);
    }
  };
  Kafka<rd_kafka_t> producer_;
  std::unique_ptr<rd_kafka_mock_cluster_t, DeleteCluster> cluster_;
};

/// The next stage: keeps changes, and does with receipts what the test says.
class Collector final : public Downstream {
 public:
  enum class Receipts { done, hold };

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Change>&>(base);
    const std::lock_guard lock(mutex_);
    if (batch.items.empty()) return;
    ++batches_;
    for (const Change& change : batch.items) {
      const auto& row = change.after.empty() ? change.before : change.after;
      seen_.push_back(row.at(0).second.value_or("NULL"));
    }
    if (receipts_ == Receipts::done) {
      batch.receipt.done();
    } else {
      held_.push_back(std::move(batch.receipt));
    }
  }
  void set(Receipts receipts) {
    const std::lock_guard lock(mutex_);
    receipts_ = receipts;
  }
  /// The first column of every change.
  [[nodiscard]] std::vector<std::string> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  [[nodiscard]] std::size_t count() const { return seen().size(); }
  [[nodiscard]] std::size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  void resolve(std::size_t position, Outcome outcome) {
    const std::lock_guard lock(mutex_);
    held_.at(position).resolve(outcome);
  }
  void resolve_all(Outcome outcome) {
    const std::lock_guard lock(mutex_);
    for (Receipt& receipt : held_) receipt.resolve(outcome);
    held_.clear();
  }

 private:
  mutable std::mutex mutex_;
  Receipts receipts_ = Receipts::done;
  std::vector<std::string> seen_;
  std::vector<Receipt> held_;
  std::size_t batches_ = 0;
};

/// A source that runs from construction (or `start`) to `stop`.
class RunningSource {
 public:
  explicit RunningSource(const CanalOptions& options, Collector& out) : source_(options) {
    source_.open(context);
    thread_ = std::jthread([this, &out](const std::stop_token& stop) {
      try {
        Output<Change> output(out);
        source_.run(output, stop);
      } catch (const std::exception& error) {
        failure_ = error.what();
      }
      ended_ = true;
    });
  }
  RunningSource(const RunningSource&) = delete;
  RunningSource& operator=(const RunningSource&) = delete;
  ~RunningSource() { stop(); }

  void stop() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
    source_.close();
  }
  [[nodiscard]] bool ended() const { return ended_; }
  /// Of an ended one.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] bool logged(const std::string& part) const {
    const auto messages = context.messages();
    return std::any_of(messages.begin(), messages.end(), [&](const auto& message) {
      return message.second.find(part) != std::string::npos;
    });
  }

  testing::TestContext context;

 private:
  SourceCanal source_;
  std::string failure_;
  std::atomic<bool> ended_{false};
  std::jthread thread_;
};

class KafkaTest : public ::testing::Test {
 protected:
  [[nodiscard]] CanalOptions options() const {
    CanalOptions options;
    options.brokers = cluster.brokers();
    options.topics = {"changes"};
    options.commit_every = 10ms;
    options.retry_pause = 50ms;
    options.wait = 20s;
    options.kafka = {{"session.timeout.ms", "6000"}};
    return options;
  }
  static std::string inserted(int id, const std::string& table = "t") {
    return fmt::format(
        R"({{"data":[{{"id":"{}"}}],"database":"d","isDdl":false,"table":"{}","type":"INSERT"}})",
        id, table);
  }
  void produce(int first, int last, int partition = 0) const {
    for (int id = first; id <= last; ++id) cluster.produce("changes", inserted(id), partition);
  }
  static std::vector<std::string> ids(int first, int last) {
    std::vector<std::string> list;
    for (int id = first; id <= last; ++id) list.push_back(std::to_string(id));
    return list;
  }

  MockCluster cluster;
  Collector out;
};

}  // namespace millrace
