#include "run/busy.h"

#include <thread>

#include <gtest/gtest.h>

namespace millrace::host {
namespace {

using namespace std::chrono_literals;

TEST(BusySampler, ASourceThatWaitsIsNotBusyAndAnotherStageIs) {
  BusySampler sampler;
  Account source;
  Account stage;
  std::uint64_t slept = 0;
  Timekeeper keeper(sampler, &source);
  for (Account* account : {&source, &stage}) {
    keeper.switch_to(account);
    sampler.look();
    const auto before = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(50ms);
    slept = static_cast<std::uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now() - before).count());
    sampler.look();
  }
  EXPECT_GE(stage.busy_ns.value(), slept);
  EXPECT_LT(source.busy_ns.value(), stage.busy_ns.value());
}

TEST(BusySampler, ASourceThatWorksIsBusy) {
  BusySampler sampler;
  Account source;
  Timekeeper keeper(sampler, &source);
  keeper.switch_to(&source);
  sampler.look();
  while (source.busy_ns.value() < 1000000) sampler.look();
  EXPECT_TRUE(sampler.works_on(source));
}

}  // namespace
}  // namespace millrace::host
