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

struct Ids {
  uid_t user;
  gid_t group;
};

Ids find(const std::string& user) {
  // A network directory of users may give several answers; the first is the one.
  std::vector<char> room(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(user.c_str(), &entry, room.data(), room.size(), &found);
  if (found == nullptr) throw std::runtime_error(fmt::format("there is no user '{}'", user));
  if (::geteuid() != 0) {
    throw std::runtime_error(fmt::format("only root can become the user '{}'", user));
  }
  return {entry.pw_uid, entry.pw_gid};
}

void require(int result, const char* doing) {
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
  const auto [uid, gid] = find(user);
  require(::prctl(PR_SET_KEEPCAPS, 1), "keeping the rights of a capture");
  require(::initgroups(user.c_str(), gid), "taking the user's groups");
  require(::setgid(gid), "taking the user's group");
  require(::setuid(uid), "becoming the user");
  const Capabilities capture = none();
  const cap_value_t kept[] = {CAP_NET_RAW, CAP_NET_ADMIN};
  require(cap_set_flag(capture.get(), CAP_PERMITTED, 2, kept, CAP_SET), "capabilities");
  require(cap_set_flag(capture.get(), CAP_EFFECTIVE, 2, kept, CAP_SET), "capabilities");
  require(cap_set_proc(capture.get()), "keeping the rights of a capture");
  require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new rights");
}

void Privileges::check(const std::string& user) { static_cast<void>(find(user)); }

void Privileges::drop_in_this_thread() const {
  if (changed_) require(cap_set_proc(none().get()), "giving up the rights of a capture");
}

}  // namespace millrace::host
