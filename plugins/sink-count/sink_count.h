#pragma once

#include <array>

#include "millrace/packet.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

namespace millrace {

/// Counts verdicts and forgets them.
class CountSessions final : public Sink<Verdict> {
 public:
  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;

 private:
  static constexpr std::array kReasons = {Due::full, Due::timeout, Due::end, Due::evicted};

  Counter* sessions_ = nullptr;
  Counter* packets_ = nullptr;
  Counter* bytes_ = nullptr;
  std::array<Counter*, kReasons.size()> reasons_{};  ///< by the value of Due
};

/// Counts packets and forgets them.
class CountPackets final : public Sink<Packet> {
 public:
  void open(Context& context) override;
  void write(Batch<Packet>& in) override;

 private:
  Counter* packets_ = nullptr;
  Counter* bytes_ = nullptr;
};

}  // namespace millrace
