#pragma once

#include "millrace/packet.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

namespace millrace {

class CountSessions final : public Sink<Verdict> {
 public:
  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;

 private:
  Counter* sessions_ = nullptr;
  Counter* packets_ = nullptr;
  Counter* bytes_ = nullptr;
};

class CountPackets final : public Sink<Packet> {
 public:
  void open(Context& context) override;
  void write(Batch<Packet>& in) override;

 private:
  Counter* packets_ = nullptr;
  Counter* bytes_ = nullptr;
};

}  // namespace millrace
