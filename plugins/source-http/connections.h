#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include <boost/asio/ip/address.hpp>

#include "options.h"

namespace millrace {

/// Who is connected and who uploads, within bounds for all and for each address. Any thread.
///
/// A connection that waits, for a request, headers or a handshake, makes room for a new one; one
/// that uploads does not. An upload slower than `min_rate` makes way where places are short.
class Connections {
 public:
  using SteadyClock = std::chrono::steady_clock;
  enum class Interrupt : std::uint8_t {
    close,   ///< the connection ends
    cancel,  ///< only what it reads at present
  };

  /// One connection.
  class Line {
   public:
    Line(std::string address, std::function<void(Interrupt)> interrupt)
        : address_(std::move(address)), interrupt_(std::move(interrupt)) {}

    // For the one who reads the body.
    void begin_body() {
      started_ = SteadyClock::now().time_since_epoch().count();
      got_ = 0;
      pushed_out_ = false;
    }
    void reading(bool on) { reading_ = on; }
    void received(std::uint64_t bytes) { got_ += bytes; }
    /// Time that the client is not to blame for.
    void excuse(SteadyClock::duration time) { started_ += time.count(); }
    /// Its place was given to another upload.
    [[nodiscard]] bool pushed_out() const { return pushed_out_; }

   private:
    friend class Connections;
    const std::string address_;
    const std::function<void(Interrupt)> interrupt_;  ///< only posts
    std::atomic<SteadyClock::rep> started_{0};
    std::atomic<std::uint64_t> got_{0};
    std::atomic<bool> reading_{false};
    std::atomic<bool> pushed_out_{false};
    // Below: under the mutex.
    bool gone_ = false;
    bool waits_ = false;
    std::list<Line*>::iterator in_all_;
    std::list<Line*>::iterator in_address_;
  };

  explicit Connections(const HttpOptions& options) : options_(options) {}

  /// What is counted as one address.
  [[nodiscard]] static std::string network(const boost::asio::ip::address& address);

  /// Null if there is no room and nobody can make any. `interrupt` must only post.
  [[nodiscard]] std::shared_ptr<Line> admit(std::string network,
                                            std::function<void(Interrupt)> interrupt);
  void leave(Line& line);
  /// From now on it is not closed to make room. False: it has been closed already.
  [[nodiscard]] bool busy(Line& line);
  /// It waits for its client again, beginning now.
  void waits(Line& line);

  /// One of the places for uploads; the line must be busy.
  [[nodiscard]] bool take_place(Line& line);
  void give_back_place(Line& line);
  /// Breaks off the slowest upload whose place this one could have. False: there is none.
  bool push_out_for(const Line& line);
  /// Since when all places have been taken; the clock's epoch: they are not.
  [[nodiscard]] SteadyClock::time_point full_since() const;

 private:
  struct Address {
    std::uint32_t connections = 0;
    std::uint32_t uploads = 0;
    std::list<Line*> waiting;  ///< the one that has waited for longest first
  };

  void remove(Line& line);
  void stop_waiting(Line& line);

  const HttpOptions& options_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Address> addresses_;
  std::list<Line*> waiting_;    ///< likewise
  std::list<Line*> uploading_;  ///< those with a place
  std::uint32_t connections_ = 0;
  SteadyClock::time_point full_since_{};
};

}  // namespace millrace
