#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "millrace/option.h"
#include "millrace/stage.h"

#include "ticket_store.h"

namespace millrace {

struct QueueMemoryOptions {
  Duration delay = std::chrono::seconds(10);
  std::uint32_t batch = 64;
  std::uint32_t max_tickets = 1U << 20U;
  std::uint32_t max_attempts = 20;
  std::string server{};
  std::string name{};
};

/// Takes tickets in; those with reason `timeout` are held back for `delay`.
class QueueMemoryIn final : public Sink<Ticket> {
 public:
  explicit QueueMemoryIn(const QueueMemoryOptions& options) : options_(options) {}

  void open(Context& context) override;
  void write(Batch<Ticket>& in) override;
  void flush() override;

 private:
  QueueMemoryOptions options_;
  std::shared_ptr<TicketStore> store_;
  Counter* delayed_ = nullptr;
};

/// Gives tickets out; those whose receipt fails come again after a pause. Ends when the other half
/// has been flushed and everything is settled; a request to stop only waits for that.
class QueueMemoryOut final : public Source<Ticket> {
 public:
  explicit QueueMemoryOut(const QueueMemoryOptions& options) : options_(options) {}

  void open(Context& context) override;
  void run(Output<Ticket>& out, std::stop_token stop) override;

 private:
  class Work;

  QueueMemoryOptions options_;
  Context* context_ = nullptr;
  std::shared_ptr<TicketStore> store_;
  Counter* retried_ = nullptr;
  Counter* dead_ = nullptr;
};

}  // namespace millrace
