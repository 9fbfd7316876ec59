#pragma once

#include "millrace/context.h"
#include "millrace/session_table.h"

namespace millrace {

/// What has been counted between two looks at a table.
[[nodiscard]] SessionCounts difference(const SessionCounts& now, const SessionCounts& before);

/// Puts a table's counts into a stage's account.
class SplitCounters {
 public:
  void open(Context& context);
  void add(const SessionCounts& more);

 private:
  Context* context_ = nullptr;
  Counter* sessions_ = nullptr;
  Counter* fragments_ = nullptr;
  Counter* forgotten_ = nullptr;
  Counter* clock_jumps_ = nullptr;
  bool told_of_jump_ = false;
};

}  // namespace millrace
