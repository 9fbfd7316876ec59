#include "millrace/testing.h"

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using namespace std::chrono_literals;
using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Options {
  std::uint32_t least = 0;
  std::string name{};
};

/// Gives on what is long enough, after a call that may fail.
class LongOnly final : public Transform<Packet, Packet> {
 public:
  explicit LongOnly(const Options& options) : options_(options) {}
  void open(Context& context) override {
    if (options_.name == "bad") throw ConfigError("name", "it is bad");
    context_ = &context;
  }
  void close() noexcept override { context_->info("closed"); }
  void process(Batch<Packet>& in, Output<Packet>& out) override {
    link();
    Batch<Packet> kept;
    for (const Packet& packet : in.items) {
      if (packet.length >= options_.least) kept.items.push_back(packet);
    }
    context_->dropped("short", in.items.size() - kept.items.size());
    kept.storage = in.storage;
    out.push(std::move(kept));
  }
  void flush(Output<Packet>& out) override { out.push(Batch<Packet>(std::vector<Packet>(1))); }

  Faults link;

 private:
  Options options_;
  Context* context_ = nullptr;
};

/// Does what the contract forbids.
class Careless final : public Transform<Packet, Packet> {
 public:
  enum class Sin { pushes, takes_receipt, takes_items, turns_time_back, rejects_others };
  explicit Careless(Sin sin) : sin_(sin) {}
  void process(Batch<Packet>& in, Output<Packet>& out) override {
    if (sin_ == Sin::pushes) out.push({});
    if (sin_ == Sin::takes_receipt) in.receipt.done();
    if (sin_ == Sin::takes_items) in.items.clear();
    if (sin_ == Sin::rejects_others) throw Rejected("others", {in.items.size()});
    if (sin_ == Sin::turns_time_back) {
      Batch<Packet> early;
      early.watermark = in.watermark - 1s;
      out.push({});
      out.push(std::move(early));
    }
    throw Transient("not now");
  }

 private:
  Sin sin_;
};

/// Keeps receipts until it is flushed.
class Keeper final : public Sink<Packet> {
 public:
  void write(Batch<Packet>& in) override {
    if (in.items.size() > 2) throw Rejected("too many", {0, 1});
    kept_.push_back(std::move(in.receipt));
  }
  void flush() override {
    for (Receipt& receipt : kept_) receipt.done();
  }

 private:
  std::vector<Receipt> kept_;
};

/// Gives one packet after the other, up to `least`; 0: without end.
class Counting final : public Source<Packet> {
 public:
  explicit Counting(const Options& options) : options_(options) {}
  void run(Output<Packet>& out, std::stop_token stop) override {
    for (std::uint32_t i = 0; !stop.stop_requested(); ++i) {
      if (options_.least != 0 && i == options_.least) return;
      if (options_.name == "breaks") throw std::runtime_error("the wire is cut");
      Batch<Packet> batch(std::vector<Packet>(1));
      batch.watermark = Timestamp(std::chrono::seconds(i));
      out.push(std::move(batch));
    }
  }

 private:
  Options options_;
};

void check(const Options& options, Findings& findings) {
  if (options.name == "wrong") findings.add("name", "'wrong' is no name");
}

Packet packet(std::uint32_t length) {
  Packet made;
  made.length = length;
  return made;
}

TEST(DrivenTransformTest, GivesWhatTheCallPushedAndKeepsItsReceipts) {
  Driven<LongOnly> stage(Options{.least = 100});
  const auto out = stage.process({packet(99), packet(100)});
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].length, 100U);
  EXPECT_EQ(stage.context.dropped_for("short"), 1U);
  EXPECT_EQ(stage.receipts.pending(), 1);
  stage.out.settle();
  EXPECT_EQ(stage.receipts.done(), 1);
  EXPECT_EQ(stage.flush().size(), 1U);
  EXPECT_EQ(stage.out.items().size(), 2U);
}

TEST(DrivenTransformTest, ReceiptsThatFailReachTheMaker) {
  Driven<LongOnly> stage(Options{});
  stage.out.acknowledge();
  stage.out.fail_next(1);
  stage.process({packet(1)});
  stage.process({packet(1)});
  EXPECT_EQ(stage.receipts.failed(), 1);
  EXPECT_EQ(stage.receipts.done(), 1);
}

TEST(DrivenTransformTest, TimeGoesAlongAndNeverFalls) {
  Driven<LongOnly> stage(Options{});
  stage.advance(Timestamp(5s));
  stage.process({packet(1)});
  ASSERT_EQ(stage.out.batches.size(), 2U);
  EXPECT_EQ(stage.out.batches[1].watermark, Timestamp(5s));
  EXPECT_EQ(stage.receipts.pending(), 1);  // a heartbeat has none
}

TEST(DrivenTransformTest, TransientGoesToTheTestAndTheBatchIsTriedAgain) {
  Driven<LongOnly> stage(Options{});
  stage->link.on_call(1, Transient("out of reach"));
  EXPECT_THROW(stage.process({packet(1), packet(2)}), Transient);
  EXPECT_EQ(stage.receipts.pending(), 1);
  EXPECT_EQ(stage.retry().size(), 2U);
  EXPECT_EQ(stage->link.calls(), 2);
  EXPECT_THROW(stage.retry(), std::logic_error);
}

TEST(DrivenTransformTest, AnyExceptionCanBeThrown) {
  Driven<LongOnly> stage(Options{});
  stage->link.on_calls(2, 3, std::bad_alloc());
  stage.out.faults.on_call(2, std::runtime_error("downstream"));
  EXPECT_NO_THROW(stage.process({packet(1)}));
  EXPECT_THROW(stage.process({packet(1)}), std::bad_alloc);
  EXPECT_THROW(stage.process({packet(1)}), std::bad_alloc);
  EXPECT_THROW(stage.process({packet(1)}), std::runtime_error);
}

TEST(DrivenTransformTest, WatchesTheContract) {
  using Sin = Careless::Sin;
  for (const Sin sin : {Sin::pushes, Sin::takes_receipt, Sin::takes_items, Sin::turns_time_back,
                        Sin::rejects_others}) {
    Driven<Careless> stage(sin);
    Batch<Packet> batch({packet(1)});
    batch.watermark = Timestamp(9s);
    EXPECT_THROW(stage.process(std::move(batch)), ContractBroken) << static_cast<int>(sin);
  }
}

TEST(DrivenTransformTest, IsOpenedAndClosedOnce) {
  TestContext context;
  {
    Driven<LongOnly> stage(context, Options{});
    stage.close();
    EXPECT_THROW(stage.process({packet(1)}), std::logic_error);
  }
  EXPECT_EQ(context.messages().size(), 1U);
  EXPECT_THROW(Driven<LongOnly>(context, Options{.name = "bad"}), ConfigError);
  EXPECT_EQ(context.messages().size(), 1U);  // it was not opened
}

TEST(DrivenSinkTest, KeepsWhatTheSinkHasNotMadeSafe) {
  Driven<Keeper> sink;
  sink.write({packet(1)});
  sink.advance();
  EXPECT_EQ(sink.receipts.pending(), 1);
  sink.flush();
  EXPECT_EQ(sink.receipts.done(), 1);
}

TEST(DrivenSinkTest, RejectedItemsAreSetAsideBeforeTheNextAttempt) {
  Driven<Keeper> sink;
  EXPECT_THROW(sink.write({packet(1), packet(2), packet(3)}), Rejected);
  sink.retry();
  sink.flush();
  EXPECT_EQ(sink.receipts.done(), 1);
}

TEST(DrivenSourceTest, RunsToItsEndOrUntilThereIsEnough) {
  EXPECT_EQ(Driven<Counting>(Options{.least = 3}).run().size(), 3U);
  Driven<Counting> endless(Options{});
  EXPECT_EQ(endless.run(5).size(), 5U);
  EXPECT_EQ(endless.run(0).size(), 0U);
}

TEST(DrivenSourceTest, RunsInAThreadOfItsOwn) {
  Driven<Counting> source(Options{});
  source.start();
  EXPECT_TRUE(source.out.wait_for(10));
  source.stop();
  EXPECT_TRUE(source.ended());
}

TEST(DrivenSourceTest, WhatItThrowsIsNotLost) {
  Driven<Counting> source(Options{.name = "breaks"});
  EXPECT_THROW(source.run(), std::runtime_error);
  source.start();
  EXPECT_THROW(source.join(), std::runtime_error);
}

TEST(ConfiguredTest, OptionsAreThoseOfAPipelineFile) {
  Driven<LongOnly> stage(configured("long-only", "least = 100"));
  EXPECT_EQ(stage.process({packet(99), packet(100)}).size(), 1U);
  EXPECT_EQ(Driven<Counting>(configured("counting", "least = 2")).run().size(), 2U);
  EXPECT_THROW(Driven<Counting>(configured("long-only")), std::invalid_argument);
  EXPECT_THROW((void)descriptor("lnog-only"), std::invalid_argument);
}

TEST(ConfiguredTest, ProblemsAreThoseOfCheck) {
  EXPECT_EQ(problems("long-only", "least = 1\nname = \"good\""), "");
  EXPECT_THAT(problems("long-only", "least = \"abc\"\nnmae = \"x\""),
              AllOf(HasSubstr("options:1:9: error: \"abc\" cannot be 'least'"),
                    HasSubstr("expected an integer"), HasSubstr("did you mean 'name'?")));
  EXPECT_THAT(problems("long-only", "name = \"wrong\""),
              HasSubstr("options:1:8: error: 'wrong' is no name"));
  EXPECT_THAT(problems("long-only", "least ="), HasSubstr("options:1"));
  EXPECT_THAT(problems("counting", ""), HasSubstr("needs the option 'least'"));
}

TEST(ItemsTest, SessionsHaveTheirIdsAndDirections) {
  const Session made = session({.src = "10.0.0.9", .dst = "10.0.0.2", .protocol = 17});
  EXPECT_FALSE(made.info.src_is_low);
  EXPECT_EQ(to_string(endpoints(made.info).src, 4), "10.0.0.9");
  EXPECT_EQ(endpoints(made.info).dst_port, 80);
  EXPECT_EQ(verdict("web").session.id, ticket().id);
  EXPECT_EQ(session_info({.src = "2001:db8::1", .dst = "::1"}).key.family, 6);
  EXPECT_THROW((void)session_info({.src = "10.0.0"}), std::invalid_argument);
  EXPECT_THROW((void)session_info({.src = "::1"}), std::invalid_argument);
}

TEST(ItemsTest, PacketsBecomeTheSessionsOfASplitter) {
  Packets packets;
  packets.add({.src_port = 1000}, 1s);
  packets.add({.src_port = 2000}, 2s);
  packets.add({.src_port = 1000}, 3s);
  const Batch<Packet> batch = packets.take();
  EXPECT_EQ(batch.watermark, Timestamp(3s));
  EXPECT_TRUE(packets.take().items.empty());
  const Batch<Session> sessions = sessions_of(batch.items);
  ASSERT_EQ(sessions.items.size(), 2U);
  EXPECT_EQ(sessions.items[0].packets.size(), 2U);
  EXPECT_EQ(sessions.items[0].info.id,
            session_info({.protocol = 17, .first_seen = Timestamp(1s)}).id);
}

TEST(OutputTest, PushLeavesNothingEvenIfNobodyDownstreamTakesAnything) {
  class : public Downstream {
   public:
    void push(BatchBase& batch) override { seen = batch.type().count(batch); }
    std::size_t seen = 0;
  } downstream;
  WatchedReceipt watched;
  Batch<Packet> batch(std::vector<Packet>(3));
  const auto bytes = std::make_shared<int>();
  batch.storage = bytes;
  batch.receipt = watched.make();
  Output<Packet>(downstream).push(std::move(batch));
  EXPECT_EQ(downstream.seen, 3U);
  // NOLINTNEXTLINE(bugprone-use-after-move): what is left is the point.
  EXPECT_TRUE(batch.items.empty());
  EXPECT_EQ(bytes.use_count(), 1);
  EXPECT_EQ(watched.failed(), 1);
}

}  // namespace
}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN("testing", MILLRACE_VERSION,
                transform<LongOnly, Options>("long-only", "Drops what is short",
                                             option<&Options::least>("least", "bytes"),
                                             option<&Options::name>("name", "any"))
                    .checked(&check),
                source<Counting, Options>("counting", "Counts",
                                          option<&Options::least>("least", "packets").required()))
