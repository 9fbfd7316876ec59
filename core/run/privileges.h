#pragma once

#include <cstdint>
#include <string>

namespace millrace::host {

/// Root's rights, given up for those of a user: all but CAP_NET_RAW and CAP_NET_ADMIN at once,
/// which a capture needs to open its interface, and these when every source is open
/// (capabilities(7)). Capabilities belong to threads: a new thread has those of the one that starts
/// it.
class Privileges {
 public:
  /// Nothing is changed, now or later.
  Privileges() = default;
  /// Makes this process the user's, with the user's groups. Call it before there are other threads.
  /// Throws std::runtime_error if there is no such user, or the process may not do that.
  explicit Privileges(const std::string& user);
  /// Throws as the constructor does if there is no such user, or the process may not become it.
  static void check(const std::string& user);

  /// The calling thread, and those that it starts from now on, have no rights beyond the user's.
  /// Throws std::system_error.
  void drop_in_this_thread() const;

 private:
  bool changed_ = false;
};

}  // namespace millrace::host
