#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/session_table.h"
#include "millrace/stage.h"
#include "millrace/ticket.h"

#include "connection.h"
#include "layout.h"
#include "server_watch.h"
#include "settler.h"

namespace millrace {

struct ClaimOptions {
  std::string server = "redis://127.0.0.1:6379";
  std::string ca{};
  std::string prefix = "millrace";
  std::uint32_t buckets = 1;
  Duration lease = std::chrono::minutes(1);
  Duration expire = std::chrono::hours(1);
  Duration overdue = std::chrono::minutes(2);
  Duration retry = std::chrono::seconds(1);
  std::uint32_t batch = 64;
  Duration connect_timeout = std::chrono::seconds(5);
  Duration timeout = std::chrono::seconds(10);
};

void check_claim_options(const ClaimOptions& options, Findings& findings);

/// Turns tickets into the sessions they name: leases them, and when the sessions are safe
/// downstream marks them done and deletes their packets. See README.md.
class Claim final : public Transform<Ticket, Session> {
 public:
  explicit Claim(const ClaimOptions& options) : options_(options) {}

  void open(Context& context) override;
  void process(Batch<Ticket>& in, Output<Session>& out) override;
  void close() noexcept override;

 private:
  /// A ticket and the session it names.
  struct Wanted {
    const Ticket* ticket = nullptr;
    std::uint32_t bucket = 0;
    std::string session;  ///< flow and member of the index
  };
  struct Drops {
    std::uint64_t done = 0;
    std::uint64_t unknown = 0;
    std::uint64_t duplicate = 0;
    std::uint64_t leased = 0;
    std::uint64_t damaged = 0;
    std::uint64_t lost = 0;
  };

  void claim(Batch<Ticket>& in, Output<Session>& out);
  void sweep(Output<Session>& out);
  [[nodiscard]] std::size_t claim_overdue(std::uint32_t bucket, Output<Session>& out);
  void report_lost(const Drops& drops);
  [[nodiscard]] std::vector<Wanted> find(const Batch<Ticket>& in, Drops& drops);
  [[nodiscard]] RedisReply lease(std::span<const Wanted> wanted, const std::string& token);
  [[nodiscard]] std::vector<RedisReply> fetch(std::span<const Wanted> wanted,
                                              const redisReply& answer);
  void give(std::span<const Wanted> wanted, const redisReply& answer,
            const std::vector<RedisReply>& lists, const std::string& token, const Batch<Ticket>& in,
            Output<Session>& out, Drops& drops);
  [[nodiscard]] bool add_session(const Ticket& ticket, const redisReply& answer);

  ClaimOptions options_;
  std::vector<KeyNames> names_;
  std::unique_ptr<ServerWatch> watch_;
  std::unique_ptr<RedisConnection> connection_;
  std::unique_ptr<Settler> settler_;
  SessionBatch batch_;
  std::vector<Record> records_;
  std::vector<SessionPacket> packets_;
  std::string token_;  ///< of the leases of the batch at hand; kept when it has to be tried again
  Duration leased_for_{};  ///< the longest that a session of the batch is leased to another
  Context* context_ = nullptr;
  Timestamp watermark_ = kNoTime;
  Timestamp next_sweep_ = kNoTime;
  Timestamp next_word_ = kNoTime;  ///< when overdue sessions may be mentioned again
  Counter* come_back_ = nullptr;
  Counter* overdue_ = nullptr;
  Counter* lost_ = nullptr;
};

}  // namespace millrace
