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

#include "change_fixture.h"
#include "source_canal.h"

namespace millrace {

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

using RunningSource = RunningChanges<SourceCanal, CanalOptions>;

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
