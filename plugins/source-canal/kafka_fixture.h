#pragma once

/// A cluster and a source-canal in a thread.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/error.h"
#include "millrace/testing.h"

#include "change_fixture.h"
#include "source_canal.h"
#include "support/kafka_cluster.h"

namespace millrace {

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
