#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "producer.h"

namespace millrace {

/// What is wrong with options that are each valid alone.
void check_kafka_options(const KafkaOptions& options, Findings& findings);

/// Writes a message for each session. A batch is acknowledged when the brokers have acknowledged
/// all of its messages; until then it is kept, within the bounds of `window` and `buffer`.
class SinkKafka final : public Sink<Verdict>, private KafkaProducer::Listener {
 public:
  explicit SinkKafka(const KafkaOptions& options) : options_(options) {}

  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;
  void flush() override;
  void close() noexcept override;

 private:
  /// A batch of which `left` messages are not acknowledged.
  struct Taken {
    Batch<Verdict> batch;
    std::size_t left = 0;
  };
  struct Message {
    std::shared_ptr<Taken> taken;
    std::size_t position = 0;
    std::size_t bytes = 0;  ///< of the value, once it was made
    /// It was refused together with others, which may have been the reason: nothing goes with it.
    bool alone = false;
  };
  using Messages = std::map<std::uint64_t, Message>;  // by number, in the order of the input

  void delivered(std::uint64_t number, rd_kafka_resp_err_t code) noexcept override;
  void serve(const std::stop_token& stop) noexcept;
  /// Hands messages to the client. Needs the lock, and gives it back while a message is rejected.
  void send(std::unique_lock<std::mutex>& lock);
  void settle(std::unique_lock<std::mutex>& lock, Messages::node_type node,
              rd_kafka_resp_err_t code);
  void reject(std::unique_lock<std::mutex>& lock, const Message& message,
              const std::string& reason);
  /// The message is done with: calls `tell` without the lock, resolves the receipt if it was its
  /// batch's last, and only then makes room.
  template <class Tell>
  void conclude(std::unique_lock<std::mutex>& lock, const Message& message, Tell tell);
  /// Throws Transient while the brokers take nothing.
  template <class Condition>
  void wait_until(std::unique_lock<std::mutex>& lock, Condition condition);

  const KafkaOptions options_;
  Context* context_ = nullptr;
  Counter* messages_ = nullptr;
  Counter* bytes_ = nullptr;
  Counter* again_ = nullptr;
  Counter* alone_ = nullptr;

  std::mutex mutex_;
  std::condition_variable settled_;
  Messages waiting_;            ///< not with the client
  Messages sent_;               ///< with the client, not acknowledged
  bool exclusive_ = false;      ///< the one in sent_ goes alone
  std::uint64_t open_ = 0;      ///< messages that are not done with
  std::uint64_t next_ = 0;      ///< number of the next message
  std::uint64_t held_ = 0;      ///< bytes of what is in both, with the batches' storage
  std::uint64_t progress_ = 0;  ///< messages done with so far
  std::string failing_;         ///< why a message was not taken at last; empty: it was
  std::chrono::steady_clock::time_point hold_until_{};
  std::string value_;

  std::unique_ptr<KafkaProducer> producer_;
  std::jthread server_;  ///< last: it uses the above
};

}  // namespace millrace
