#pragma once

#include <string>
#include <vector>

#include "apply.h"
#include "zk_fixture.h"

namespace millrace {

inline Change inserted(Change::Row row) {
  return {Change::Kind::inserted, "db", "agent_config", {}, std::move(row)};
}
inline Change updated(Change::Row before, Change::Row after) {
  return {Change::Kind::updated, "db", "agent_config", std::move(before), std::move(after)};
}
inline Change deleted(Change::Row row) {
  return {Change::Kind::deleted, "db", "agent_config", std::move(row), {}};
}

class ApplyTest : public ZkTest {
 protected:
  void SetUp() override {
    ZkTest::SetUp();
    if (IsSkipped()) return;
    options_.server = server();
    options_.node = folder_ + "/agents/{agent}";
    options_.session_timeout = 2s;
    other_ = std::make_unique<Other>(server());
  }
  void TearDown() override { stop(); }

  ConfigZkApply& stage() {
    if (!stage_) {
      stage_ = std::make_unique<ConfigZkApply>(options_);
      stage_->open(context_);
    }
    return *stage_;
  }
  void stop() {
    if (stage_) stage_->close();
    stage_.reset();
  }
  /// As the host does: again what is transient, without what is rejected.
  void apply(std::vector<Change> changes) {
    Batch<Change> batch(std::move(changes));
    ASSERT_TRUE(eventually([&] {
      try {
        stage().write(batch);
        return true;
      } catch (const Transient& error) {
        transient_ = error.what();
        return false;
      } catch (const Rejected& error) {
        rejected_.emplace_back(error.what());
        (void)item_type<Change>().extract(batch, error.items());
        return false;
      }
    }));
  }
  std::string get(const std::string& agent) { return other_->get(folder_ + "/agents/" + agent); }
  std::vector<std::string> agents() { return other_->children(folder_ + "/agents"); }
  std::uint64_t count(const std::string& name) { return context_.counter(name).value(); }

  ApplyOptions options_;
  std::unique_ptr<Other> other_;
  std::unique_ptr<ConfigZkApply> stage_;
  std::string transient_;
  std::vector<std::string> rejected_;
};

}  // namespace millrace
