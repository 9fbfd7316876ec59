#include "run/pipeline.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "run/test_stages.h"

namespace millrace::host {
namespace {

using namespace testing;
using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

TEST_F(PipelineTest, FusedStagesDeliverEverything) {
  source(1000, 7);
  through(0, [](Batch<Number>&) {});
  sink({1});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(notes_.values, numbers(1000));
  EXPECT_EQ(notes_.flushes, 1);
  EXPECT_EQ(notes_.closes, 1);
  EXPECT_EQ(notes_.receipts_done, 143);
  EXPECT_EQ(notes_.receipts_failed, 0);
  EXPECT_EQ(account(2).handled.value(), 1000U);
}

TEST_F(PipelineTest, WorkersKeepTheOrder) {
  source(3000, 3);
  std::atomic<unsigned> calls{0};
  through(0,
          [&](Batch<Number>&) {
            // Uneven work, so that workers overtake each other.
            if (++calls % 3 == 0) std::this_thread::sleep_for(100us);
          },
          {.workers = 4});
  sink({1});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(notes_.values, numbers(3000));
  EXPECT_EQ(notes_.receipts_done, 1000);
}

TEST_F(PipelineTest, FanOutGivesEveryReaderAllAndTheReceiptWaitsForBoth) {
  source(100, 10);
  sink({0});
  sink({0}, {}, {.queue = QueueOptions{.batches = 1}});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(notes_.values.size(), 200U);
  EXPECT_EQ(notes_.receipts_done, 10);
}

TEST_F(PipelineTest, FanInTakesFromAll) {
  source(100, 10);
  source(50, 5);
  sink({0, 1});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(notes_.values.size(), 150U);
}

TEST_F(PipelineTest, TransientIsTriedAgainWithTheSameBatch) {
  source(10, 5);
  int failures = 3;
  sink({0}, [&](Batch<Number>& in) {
    if (in.items.front().value == 5 && failures-- > 0) throw Transient("not now");
  });
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(notes_.values, numbers(10));
  EXPECT_EQ(account(1).retried.value(), 15U);
}

TEST_F(PipelineTest, RetriesEndAndTheReceiptFails) {
  source(5, 5);
  sink({0},
       [](Batch<Number>& in) {
         if (!in.items.empty()) throw Transient("never");
       },
       {.retry_for = 0ns});
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_EQ(notes_.receipts_failed, 1);
  EXPECT_EQ(account(1).failed.value(), 5U);
}

TEST_F(PipelineTest, RejectedItemsAreTakenOutAndTheRestGoesOn) {
  source(10, 5);
  sink({0}, [](Batch<Number>& in) {
    for (std::size_t i = 0; i < in.items.size(); ++i) {
      if (in.items[i].value % 4 == 3) throw Rejected("divisible", {i});
    }
  });
  EXPECT_EQ(run(), Exit::done);
  EXPECT_THAT(notes_.values, ElementsAre(0, 1, 2, 4, 5, 6, 8, 9));
  EXPECT_EQ(account(1).rejected.value(), 2U);
  EXPECT_EQ(notes_.receipts_done, 2);
}

TEST_F(PipelineTest, DeadLettersGoToTheFile) {
  const auto path =
      std::filesystem::temp_directory_path() / ("dead-letters-" + std::to_string(::getpid()));
  std::filesystem::remove(path);
  source(4, 2);
  HostOptions host;
  host.on_reject = OnReject::file;
  host.reject_file = path;
  sink(
      {0},
      [](Batch<Number>& in) {
        if (!in.items.empty() && in.items.front().value == 2) throw Rejected("no \"twos\"");
      },
      host);
  EXPECT_EQ(run(), Exit::done);
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_THAT(line,
              ::testing::HasSubstr(R"("reason":"no \"twos\"","type":"test.Number","item":2})"));
  std::getline(file, line);
  EXPECT_THAT(line, ::testing::EndsWith(R"("item":3})"));
  std::filesystem::remove(path);
}

TEST_F(PipelineTest, DeadLettersHaveWholeLinesOnly) {
  const auto path =
      std::filesystem::temp_directory_path() / ("half-dead-letters-" + std::to_string(::getpid()));
  const auto content = [&] {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  std::ofstream(path) << "{\"item\":1}\n{\"it";
  {
    DeadLetters letters(path);
    EXPECT_EQ(content(), "{\"item\":1}\n") << "half a line of a run that was killed";
  }
  const auto write_to_a_full_file = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{40, 40};
    DeadLetters letters(path);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      letters.write("stage", "reason", Batch<Number>(std::vector<Number>{{1}, {2}}));
    } catch (const std::system_error& error) {
      ::_exit(error.code().value() == EFBIG ? 0 : 1);
    }
    ::_exit(2);
  };
  ::testing::GTEST_FLAG(death_test_style) = "fast";
  EXPECT_EXIT(write_to_a_full_file(), ::testing::ExitedWithCode(0), "");
  EXPECT_EQ(content(), "{\"item\":1}\n") << "half a line of a full disk";
  std::filesystem::remove(path);
}

TEST_F(PipelineTest, HeartbeatsThatFailAreNoUndeliveredBatches) {
  builder_.add("ticks", StageKind::source, {}, [] {
    class Ticking final : public Source<Number> {
      void run(Output<Number>& out, std::stop_token) override {
        for (int i = 0; i < 100; ++i) out.push(Batch<Number>{});
        out.push(Batch<Number>(std::vector<Number>{{1}}));
      }
    };
    return std::make_unique<Ticking>();
  });
  sink({0}, [](Batch<Number>&) { throw std::runtime_error("broken"); });
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_EQ(account(0).undelivered.value(), 1U);
}

/// Hears of everything at the end only: rejects multiples of four.
class Late final : public Sink<Number> {
 public:
  explicit Late(Notes& notes) : notes_(notes) {}
  void open(Context& context) override { context_ = &context; }
  void write(Batch<Number>& in) override { taken_.push_back(std::move(in)); }
  void flush() override {
    for (Batch<Number>& batch : taken_) {
      Batch<Number> bad;
      bad.receipt = batch.receipt.fork();
      for (const Number& number : batch.items) {
        if (number.value % 4 == 0) bad.items.push_back(number);
      }
      context_->handled(batch.items.size() - bad.items.size());
      context_->rejected("divisible", bad);
      batch.receipt.done();
    }
  }
  void close() noexcept override { ++notes_.closes; }

 private:
  Notes& notes_;
  Context* context_ = nullptr;
  std::vector<Batch<Number>> taken_;
};

TEST_F(PipelineTest, ItemsRejectedLateAreTreatedAsTheOthers) {
  for (const OnReject what : {OnReject::count, OnReject::stop}) {
    pipeline_.reset();
    builder_ = {};
    HostOptions host;
    host.on_reject = what;
    source(10, 5);
    builder_
        .add(
            "late", StageKind::sink, {0}, [this] { return std::make_unique<Late>(notes_); }, host)
        .aggregates();
    EXPECT_EQ(run(), what == OnReject::count ? Exit::done : Exit::failed);
    EXPECT_EQ(account(1).rejected.value(), 3U);
    EXPECT_EQ(account(1).handled.value(), 7U);
  }
  EXPECT_EQ(notes_.receipts_done, 2);
  EXPECT_EQ(notes_.receipts_failed, 2);
}

TEST_F(PipelineTest, RejectCanStopThePipeline) {
  source(-1, 2);
  HostOptions host;
  host.on_reject = OnReject::stop;
  sink(
      {0},
      [](Batch<Number>& in) {
        if (!in.items.empty() && in.items.front().value == 100) throw Rejected("bad");
      },
      host);
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_EQ(account(1).rejected.value(), 2U);
}

TEST_F(PipelineTest, BranchThatIsDownIsTriedOnceABatchUntilItTakesOne) {
  std::map<int, int> attempts;  // by the first number of a batch
  source(50, 5);
  sink({0},
       [&](Batch<Number>& in) {
         if (in.items.empty()) return;
         const int first = in.items.front().value;
         if (++attempts[first] == 1 ? first != 25 : first < 25) throw Transient("down");
       },
       {.required = false, .retry_for = 20ms});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_GT(attempts[0], 1);
  for (const int first : {5, 10, 15, 20, 25}) EXPECT_EQ(attempts[first], 1) << first;
  for (const int first : {30, 35, 40, 45}) EXPECT_EQ(attempts[first], 2) << first;
  EXPECT_EQ(account(1).dropped().at("retry-timeout"), 25U);
  EXPECT_EQ(notes_.receipts_failed, 0);
}

TEST_F(PipelineTest, ManyRejectedBatchesMakeFewLines) {
  source(2000, 1);
  sink({0}, [](Batch<Number>& in) {
    if (!in.items.empty()) throw Rejected("bad");
  });
  ::testing::internal::CaptureStderr();
  const Exit exit = run();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit, Exit::done);
  std::size_t told = 0;
  std::size_t lines = 0;
  std::istringstream stream(said);
  for (std::string line; std::getline(stream, line); ++lines) {
    // Every number of the line but the stage's name counts items.
    for (std::size_t at = 0; (at = line.find_first_of("0123456789", at)) != std::string::npos;) {
      std::size_t length = 0;
      told += std::stoul(line.substr(at), &length);
      at += length;
    }
  }
  EXPECT_EQ(told, 2000U) << said;
  EXPECT_LT(lines, 200U) << said;
}

TEST_F(PipelineTest, FullQueueDropsAndCounts) {
  source(1000, 10);
  std::atomic<bool> held{true};
  sink({0},
       [&](Batch<Number>& in) {
         // Until the source has ended, the queue is full for sure.
         while (held && !in.items.empty() && notes_.receipts_done < 50) std::this_thread::yield();
         held = false;
       },
       {.queue = QueueOptions{.batches = 2, .when_full = WhenFull::drop_newest}});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_GT(account(1).dropped().at("queue-full"), 0U);
  EXPECT_EQ(notes_.values.size() + account(1).dropped_items(), 1000U);
}

class SignalTest : public PipelineTest, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Signals, SignalTest, ::testing::Values(SIGINT, SIGTERM, SIGHUP));

TEST_P(SignalTest, Drains) {
  source(-1, 5);
  through(0, [sent = false](Batch<Number>& in) mutable {
    if (in.items.front().value >= 1000 && !std::exchange(sent, true)) {
      ::kill(::getpid(), GetParam());
    }
  });
  sink({1}, {}, {.queue = QueueOptions{}});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_GE(notes_.values.size(), 1000U);
  EXPECT_EQ(notes_.values, numbers(static_cast<int>(notes_.values.size())));
  EXPECT_EQ(notes_.receipts_failed, 0);
}

/// A source that says how far it is, and a sink that asks at the end whether it has got all.
class IncompleteTest : public PipelineTest {
 protected:
  /// Gives `total` numbers, one a batch; tells of `announced`.
  class Telling final : public Source<Number> {
   public:
    Telling(std::uint64_t total, std::uint64_t announced) : total_(total), announced_(announced) {}
    void open(Context& context) override { context_ = &context; }
    void run(Output<Number>& out, std::stop_token stop) override {
      for (std::uint64_t i = 0; i < total_ && !stop.stop_requested(); ++i) {
        out.push(Batch<Number>(std::vector<Number>{{static_cast<int>(i)}}));
        context_->progress(i + 1, announced_);
      }
    }

   private:
    std::uint64_t total_;
    std::uint64_t announced_;
    Context* context_ = nullptr;
  };
  class Asking final : public Sink<Number> {
   public:
    explicit Asking(std::string& said, Noting::Function on_batch)
        : said_(said), on_batch_(std::move(on_batch)) {}
    void open(Context& context) override { context_ = &context; }
    void write(Batch<Number>& in) override { on_batch_(in); }
    void flush() override { said_ = context_->incomplete(); }

   private:
    std::string& said_;
    Noting::Function on_batch_;
    Context* context_ = nullptr;
  };
  void ask(std::uint64_t total, std::uint64_t announced, const Noting::Function& on_batch) {
    builder_.add("numbers", StageKind::source, {},
                 [=] { return std::make_unique<Telling>(total, announced); });
    builder_.add("asking", StageKind::sink, {0},
                 [=, this] { return std::make_unique<Asking>(said_, on_batch); });
  }
  static void interrupt_at_250(Batch<Number>& in) {
    if (!in.items.empty() && in.items.front().value == 250) {
      ::kill(::getpid(), SIGTERM);
      std::this_thread::sleep_for(100ms);  // the source must not be faster than the signal
    }
  }
  std::string said_ = "not asked";
};

TEST_F(IncompleteTest, InputThatEndedByItselfIsWhole) {
  ask(1000, 1000, [](Batch<Number>&) {});
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(said_, "");
}

TEST_F(IncompleteTest, InputThatWasInterruptedIsNot) {
  ask(1'000'000'000, 1'000'000'000, interrupt_at_250);
  EXPECT_EQ(run(), Exit::interrupted);
  EXPECT_THAT(said_, ContainsRegex("'numbers' was stopped after [0-9]+ % of its input"));
}

TEST_F(IncompleteTest, InputWithoutAnEndEndsWithTheSignal) {
  ask(1'000'000'000, 0, interrupt_at_250);
  EXPECT_EQ(run(), Exit::done);
  EXPECT_EQ(said_, "");
}

TEST_F(IncompleteTest, InputOfAStageThatFailedIsNot) {
  ask(1000, 1000, [](Batch<Number>&) {});
  sink({0}, [](Batch<Number>& in) {
    if (!in.items.empty()) throw std::runtime_error("broken");
  });
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_THAT(said_, ContainsRegex("stage 'sink' .*broken"));
}

TEST_F(PipelineTest, DrainDeadlineForcesTheEndAndNamesTheStage) {
  source(-1, 5);
  sink({0}, [](Batch<Number>&) {
    ::kill(::getpid(), SIGTERM);
    std::this_thread::sleep_for(std::chrono::hours(1));
  });
  const auto end = [&] {
    Logger logger(LogFormat::text, LogLevel::error);
    RunOptions options;
    options.drain = 50ms;
    Pipeline pipeline(builder_.plan(), options, logger);
    Report report;
    (void)pipeline.open(report);
    (void)pipeline.run();
  };
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(end(), ::testing::ExitedWithCode(3),
              "not drained within 0.05 s.*still at work: .*sink");
}

TEST_F(PipelineTest, ForcedEndNamesTheStageThatTriesAgainAndItsLastError) {
  source(-1, 5);
  sink({0},
       [](Batch<Number>&) {
         ::kill(::getpid(), SIGTERM);
         throw Transient("out of reach");
       },
       {.queue = QueueOptions{.batches = 2}});
  const auto end = [&] {
    Logger logger(LogFormat::text, LogLevel::error);
    RunOptions options;
    Pipeline pipeline(builder_.plan(), options, logger);
    Report report;
    (void)pipeline.open(report);
    (void)pipeline.run();
  };
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(end(), ::testing::ExitedWithCode(3),
              ContainsRegex("still at work: .*sink \\(retrying for [0-9]+ s: out of reach\\)\n"
                            "stage +in +out"));
}

TEST_F(PipelineTest, FlushIsTriedAgainAndThatIsToldOnce) {
  source(10, 5);
  int failures = 2;
  least_ = LogLevel::info;
  builder_.add("sink", StageKind::sink, {0}, [&] {
    return std::make_unique<Noting>(notes_, nullptr, [&failures] {
      if (failures-- > 0) throw Transient("no commit");
    });
  });
  ::testing::internal::CaptureStderr();
  const Exit exit = run();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit, Exit::done);
  EXPECT_EQ(notes_.flushes, 1);
  EXPECT_EQ(account(1).retried.value(), 2U);
  EXPECT_THAT(said, MatchesRegex("millrace: warning: sink: no commit; trying again\n"
                                 "millrace: sink: works again after 2 tries, [0-9.]+ s\n"));
}

TEST_F(PipelineTest, FlushThatNeverSucceedsEndsTheRun) {
  source(10, 5);
  builder_.add("sink", StageKind::sink, {0},
               [&] {
                 return std::make_unique<Noting>(notes_, nullptr,
                                                 [] { throw Transient("no commit"); });
               },
               {.retry_for = 0ns});
  EXPECT_EQ(run(), Exit::failed);
}

TEST_F(PipelineTest, BooksThatDoNotBalanceAreAnError) {
  source(10, 5);
  builder_.add("leak", StageKind::sink, {0},
               [this] { return std::make_unique<Noting>(notes_, nullptr); });
  // It says that it counts for itself, and then does not.
  const_cast<StageDescriptor*>(builder_.plan().stages[1].descriptor)->counts_handled = true;
  Logger logger(LogFormat::text, LogLevel::error);
  RunOptions options;
  options.summary = false;
  Pipeline pipeline(builder_.plan(), options, logger);
  Report report;
  ASSERT_EQ(pipeline.open(report), Exit::done);
  EXPECT_EQ(pipeline.run(), Exit::failed);
  EXPECT_EQ(imbalances(pipeline.stages()).size(), 1U);
}

}  // namespace
}  // namespace millrace::host
