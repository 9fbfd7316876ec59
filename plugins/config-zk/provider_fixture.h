#pragma once

#include <memory>
#include <string>
#include <thread>

#include "config_recorder.h"
#include "config_zk.h"
#include "zk_fixture.h"

namespace millrace {

/// A provider in a thread, as the supervisor runs it.
class Agent {
 public:
  Agent(const ConfigZkOptions& options, testing::TestContext& context) : provider_(options) {
    provider_.open(context);
    thread_ = std::jthread([this](const std::stop_token& stop) {
      try {
        provider_.run(told, stop);
      } catch (const std::exception& error) {
        const std::lock_guard lock(mutex_);
        failure_ = error.what();
      }
    });
  }
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  ~Agent() { stop(); }

  void report(const ConfigStatus& status) { provider_.report(status); }
  void stop() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
    provider_.close();
  }
  std::string failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  ConfigRecorder told;

 private:
  ConfigZk provider_;
  std::mutex mutex_;
  std::string failure_;
  std::jthread thread_;
};

class ConfigZkTest : public ZkTest {
 protected:
  void SetUp() override {
    ZkTest::SetUp();
    if (IsSkipped()) return;
    options_ = options_for(server());
  }
  [[nodiscard]] ConfigZkOptions options_for(const std::string& servers) const {
    ConfigZkOptions options;
    options.server = servers;
    options.node = folder_ + "/agents/a";
    options.status = folder_ + "/status";
    options.agent = "a";
    options.session_timeout = 2s;
    options.report = 200ms;
    return options;
  }
  [[nodiscard]] std::string status_path() const { return options_.status + "/" + options_.agent; }

  ConfigZkOptions options_;
};

}  // namespace millrace
