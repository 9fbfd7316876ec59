#pragma once

/// librdkafka's mock cluster in this process, a producer and a reader, for the tests of plugins
/// that use plugins/shared/kafka_client.h.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "kafka_client.h"
#include "support/eventually.h"

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
    const Kafka<rd_kafka_t> asker = consumer(group);
    const Kafka<rd_kafka_topic_partition_list_t> list(rd_kafka_topic_partition_list_new(1));
    rd_kafka_topic_partition_list_add(list.get(), name.c_str(), partition);
    if (rd_kafka_committed(asker.get(), list.get(), 10000) != RD_KAFKA_RESP_ERR_NO_ERROR) return -2;
    return std::max<std::int64_t>(list->elems[0].offset, -1);
  }

  struct Message {
    std::string key;
    std::string value;
    std::int32_t partition = 0;
  };
  /// All that the topic holds, partition by partition.
  [[nodiscard]] std::vector<Message> content(const std::string& name, int partitions = 1) const {
    constexpr int kPatience = 10000;
    const Kafka<rd_kafka_t> reader = consumer("reader");
    const Kafka<rd_kafka_queue_t> queue(rd_kafka_queue_new(reader.get()));
    const Kafka<rd_kafka_topic_t> topic(rd_kafka_topic_new(reader.get(), name.c_str(), nullptr));
    std::vector<Message> list;
    for (int partition = 0; partition < partitions; ++partition) {
      std::int64_t low = 0;
      std::int64_t high = 0;
      if (rd_kafka_query_watermark_offsets(reader.get(), name.c_str(), partition, &low, &high,
                                           kPatience) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw std::runtime_error("the mock cluster does not tell its offsets");
      }
      rd_kafka_consume_start_queue(topic.get(), partition, low, queue.get());
      for (std::int64_t next = low; next < high;) {
        const Kafka<rd_kafka_message_t> one(rd_kafka_consume_queue(queue.get(), kPatience));
        if (!one) throw std::runtime_error("the mock cluster does not give its messages");
        if (one->err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
        next = one->offset + 1;
        list.push_back({{static_cast<const char*>(one->key), one->key_len},
                        {static_cast<const char*>(one->payload), one->len},
                        one->partition});
      }
      rd_kafka_consume_stop(topic.get(), partition);
    }
    return list;
  }

 private:
  [[nodiscard]] Kafka<rd_kafka_t> consumer(const std::string& group) const {
    char reason[256];
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers().c_str(), reason, sizeof reason);
    rd_kafka_conf_set(conf, "group.id", group.c_str(), reason, sizeof reason);
    return Kafka<rd_kafka_t>(rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason));
  }

  struct DeleteCluster {
    void operator()(rd_kafka_mock_cluster_t* cluster) const {
      rd_kafka_mock_cluster_destroy(cluster);
    }
  };
  Kafka<rd_kafka_t> producer_;
  std::unique_ptr<rd_kafka_mock_cluster_t, DeleteCluster> cluster_;
};

}  // namespace millrace
