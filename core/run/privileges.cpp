#include "run/privileges.h"

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace millrace::host {

namespace {

void check(int result, const char* doing) {
  if (result != 0) throw std::system_error(errno, std::generic_category(), doing);
}

struct Free {
  void operator()(cap_t set) const { cap_free(set); }
};
using Capabilities = std::unique_ptr<std::remove_pointer_t<cap_t>, Free>;

Capabilities none() {
  Capabilities set(cap_init());
  if (!set) throw std::system_error(errno, std::generic_category(), "capabilities");
  return set;
}

}  // namespace

Privileges::Privileges(const std::string& user) : changed_(true) {
  // A network directory of users may give several answers; the first is the one.
  std::vector<char> room(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(user.c_str(), &entry, room.data(), room.size(), &found);
  if (found == nullptr) throw std::runtime_error(fmt::format("there is no user '{}'", user));
  if (::geteuid() != 0) {
    throw std::runtime_error(fmt::format("only root can become the user '{}'", user));
  }
  check(::prctl(PR_SET_KEEPCAPS, 1), "keeping the rights of a capture");
  check(::initgroups(user.c_str(), entry.pw_gid), "taking the user's groups");
  check(::setgid(entry.pw_gid), "taking the user's group");
  check(::setuid(entry.pw_uid), "becoming the user");
  const Capabilities capture = none();
  const cap_value_t kept[] = {CAP_NET_RAW, CAP_NET_ADMIN};
  check(cap_set_flag(capture.get(), CAP_PERMITTED, 2, kept, CAP_SET), "capabilities");
  check(cap_set_flag(capture.get(), CAP_EFFECTIVE, 2, kept, CAP_SET), "capabilities");
  check(cap_set_proc(capture.get()), "keeping the rights of a capture");
  check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new rights");
}

void Privileges::drop_in_this_thread() const {
  if (changed_) check(cap_set_proc(none().get()), "giving up the rights of a capture");
}

}  // namespace millrace::host
