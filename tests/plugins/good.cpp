// A plugin with a source, a transform and a sink that do what they are told: throw, each in any of
// the calls that the host makes.

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "millrace/packet.h"
#include "millrace/plugin.h"

namespace {

using namespace millrace;

enum class Fault : std::uint8_t { none, constructor, check, probe, open, call, flush, crash };

struct Options {
  Fault fault = Fault::none;
  bool odd = false;
  bool thread = false;

  void reach(Fault here, const char* name) const {
    if (fault != here) return;
    if (odd) throw 42;
    throw std::runtime_error(std::string(name) + " was told to throw");
  }
};

template <class Base>
class Told : public Base {
 public:
  explicit Told(const Options& options) : options_(options) {
    options_.reach(Fault::constructor, "the constructor");
  }
  void open(Context& /*context*/) override {
    options_.reach(Fault::open, "open");
    if (!options_.thread) return;
    // As libraries do it: with the signal mask that it is given.
    thread_ = std::jthread([this](const std::stop_token& stop) {
      std::unique_lock lock(mutex_);
      std::condition_variable_any().wait(lock, stop, [] { return false; });
    });
  }

 protected:
  const Options options_;

 private:
  std::mutex mutex_;
  std::jthread thread_;
};

class ToldSource final : public Told<Source<Packet>> {
 public:
  using Told::Told;
  void run(Output<Packet>& out, std::stop_token /*stop*/) override {
    options_.reach(Fault::call, "run");
    out.push({});
  }
};

class ToldTransform final : public Told<Transform<Packet, Packet>> {
 public:
  using Told::Told;
  void process(Batch<Packet>& in, Output<Packet>& out) override {
    options_.reach(Fault::call, "process");
    out.push(std::move(in));
  }
  void flush(Output<Packet>& /*out*/) override { options_.reach(Fault::flush, "flush"); }
};

class ToldSink final : public Told<Sink<Packet>> {
 public:
  using Told::Told;
  void write(Batch<Packet>& /*in*/) override {
    options_.reach(Fault::call, "write");
    if (options_.fault == Fault::crash) std::abort();
  }
  void flush() override { options_.reach(Fault::flush, "flush"); }
};

void check(const Options& options, Findings& /*findings*/) {
  options.reach(Fault::check, "the check");
}

void probe(const Options& options, Findings& /*findings*/) {
  options.reach(Fault::probe, "the probe");
}

StageDescriptor told(StageDescriptor stage) {
  stage.options = {option<&Options::thread>("thread", "have a thread"),
                   option<&Options::odd>("odd", "throw what is no std::exception"),
                   option<&Options::fault>("fault", "where to throw")
                       .choices({{"none", Fault::none},
                                 {"constructor", Fault::constructor},
                                 {"check", Fault::check},
                                 {"probe", Fault::probe},
                                 {"open", Fault::open},
                                 {"call", Fault::call},
                                 {"flush", Fault::flush},
                                 {"crash", Fault::crash}})};
  return std::move(stage).checked<Options>(&check).probed<Options>(&probe);
}

}  // namespace

MILLRACE_PLUGIN("good", MILLRACE_VERSION,
                told(sink<ToldSink, Options>("good", "Fails as it is told")),
                told(transform<ToldTransform, Options>("through", "Fails as it is told")),
                told(source<ToldSource, Options>("source", "Fails as it is told")))
