#include "zk_client.h"

#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <zookeeper/zookeeper.h>

namespace millrace {

namespace {

ZkCode code_of(int code) {
  switch (code) {
    case ZOK:
      return ZkCode::ok;
    case ZNONODE:
      return ZkCode::no_node;
    case ZNODEEXISTS:
      return ZkCode::node_exists;
    case ZNOTEMPTY:
      return ZkCode::not_empty;
    case ZBADVERSION:
      return ZkCode::bad_version;
    case ZNOAUTH:
      return ZkCode::not_allowed;
    case ZCONNECTIONLOSS:
    case ZOPERATIONTIMEOUT:
    case ZINVALIDSTATE:
    case ZSESSIONEXPIRED:
    case ZSESSIONMOVED:
    case ZAUTHFAILED:  // the state tells
    case ZCLOSING:
      return ZkCode::lost;
    default:
      return ZkCode::other;
  }
}

ZkReply reply_of(int code, const Stat* stat = nullptr) {
  ZkReply reply;
  reply.code = code_of(code);
  if (code != ZOK) {
    reply.error = zerror(code);
  } else if (stat != nullptr) {
    reply.mzxid = static_cast<std::uint64_t>(stat->mzxid);
    reply.version = stat->version;
    reply.owner = stat->ephemeralOwner;
  }
  return reply;
}

/// The library would write to stderr. What it says of connections this plugin says itself.
void drop_message(const char* /*message*/) {}

int milliseconds(Duration time) {
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(time).count());
}

/// Who may do what with the nodes that are made here.
class Access {
 public:
  explicit Access(const ZkOptions& options) {
    entries_[0] = options.auth.empty() ? ACL{ZOO_PERM_ALL, ZOO_ANYONE_ID_UNSAFE}
                                       : ACL{ZOO_PERM_ALL, ZOO_AUTH_IDS};
    entries_[1] = ACL{ZOO_PERM_READ, ZOO_ANYONE_ID_UNSAFE};
    list_.count = !options.auth.empty() && options.readable ? 2 : 1;
    list_.data = entries_.data();
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  ~Access() = default;
  [[nodiscard]] const ACL_vector* list() const noexcept { return &list_; }

 private:
  std::array<ACL, 2> entries_{};
  ACL_vector list_{};
};

}  // namespace

/// Called by the library's threads; none of them outlives the handle, nor the handle the client.
struct ZkClient::Callbacks {
  static ZkClient& client(const void* self) {
    return *const_cast<ZkClient*>(static_cast<const ZkClient*>(self));
  }

  static void event(zhandle_t* /*handle*/, int type, int state, const char* path, void* self) {
    ZkClient& to = client(self);
    const std::lock_guard lock(to.mutex_);
    if (type == ZOO_SESSION_EVENT) {
      if (state == ZOO_CONNECTED_STATE) {
        to.state_ = ZkState::connected;
        ++to.connections_;
      } else if (state == ZOO_EXPIRED_SESSION_STATE) {
        to.state_ = ZkState::expired;
      } else if (state == ZOO_AUTH_FAILED_STATE) {
        to.state_ = ZkState::auth_failed;
      } else {
        to.state_ = ZkState::connecting;
      }
    } else if (path != nullptr) {
      to.changes_.emplace_back(path);
    }
    to.woken_ = true;
    to.news_.notify_all();
  }

  static void answer(const void* self, ZkReply reply) {
    ZkClient& to = client(self);
    const std::lock_guard lock(to.mutex_);
    to.reply_ = std::move(reply);
    to.news_.notify_all();
  }
  static void done(int code, const void* self) { answer(self, reply_of(code)); }
  static void stat(int code, const Stat* stat, const void* self) {
    answer(self, reply_of(code, stat));
  }
  static void data(int code, const char* value, int size, const Stat* stat, const void* self) {
    ZkReply reply = reply_of(code, stat);
    // A node without data has size -1.
    if (code == ZOK && size > 0) reply.data.assign(value, static_cast<std::size_t>(size));
    answer(self, std::move(reply));
  }
  static void created(int code, const char* /*path*/, const Stat* stat, const void* self) {
    answer(self, reply_of(code, stat));
  }
  static void names(int code, const String_vector* list, const void* self) {
    ZkReply reply = reply_of(code);
    if (code == ZOK && list != nullptr) {
      for (std::int32_t i = 0; i < list->count; ++i) reply.children.emplace_back(list->data[i]);
    }
    answer(self, std::move(reply));
  }
};

void ZkClient::Close::operator()(_zhandle* handle) const noexcept { zookeeper_close(handle); }

void ZkClient::open() {
  close();
  {
    const std::lock_guard lock(mutex_);
    state_ = ZkState::connecting;
  }
  handle_.reset(zookeeper_init2(options_.servers.hosts.c_str(), &Callbacks::event,
                                milliseconds(options_.session_timeout), nullptr, this, 0,
                                &drop_message));
  if (!handle_) {
    const int error = errno;
    close();
    // What the library makes of the resolver's answers.
    const bool unknown = error == ENOENT || error == EINVAL || error == EAGAIN;
    throw std::runtime_error(fmt::format(
        "no session of {}: {}", options_.servers.hosts,
        unknown ? "no address of a host is known" : std::generic_category().message(error)));
  }
  if (!options_.auth.empty()) {
    const int code = zoo_add_auth(handle_.get(), "digest", options_.auth.data(),
                                  static_cast<int>(options_.auth.size()), nullptr, nullptr);
    if (code != ZOK) {
      close();
      // That is its code for a handle whose first attempt to connect has failed meanwhile.
      if (code == ZINVALIDSTATE) {
        throw std::runtime_error(fmt::format("no server of {} answers", options_.servers.hosts));
      }
      throw std::runtime_error(
          fmt::format("no session of {}: {}", options_.servers.hosts, zerror(code)));
    }
  }
}

void ZkClient::close() noexcept {
  handle_.reset();
  const std::lock_guard lock(mutex_);
  state_ = ZkState::closed;
  changes_.clear();
  reply_.reset();
}

ZkState ZkClient::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::uint64_t ZkClient::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

std::int64_t ZkClient::session() const {
  return handle_ ? zoo_client_id(handle_.get())->client_id : 0;
}

void ZkClient::wait(std::optional<Time> until, const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto woken = [this] { return woken_; };
  if (until) {
    news_.wait_until(lock, stop, *until, woken);
  } else {
    news_.wait(lock, stop, woken);
  }
  woken_ = false;
}

void ZkClient::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  news_.notify_all();
}

std::vector<std::string> ZkClient::take_changes() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> changes = std::exchange(changes_, {});
  for (std::string& path : changes) path.erase(0, options_.servers.folder.size());
  return changes;
}

ZkReply ZkClient::call(const Start& start, const std::stop_token& stop) {
  ZkReply lost;
  if (!handle_) {
    lost.error = "there is no session";
    return lost;
  }
  {
    const std::lock_guard lock(mutex_);
    reply_.reset();
  }
  if (const int code = start(handle_.get(), this); code != ZOK) return reply_of(code);
  // The library gives up by itself on a server that is silent for two thirds of the session's
  // time-out; this is for a library that does not.
  const auto until = std::chrono::steady_clock::now() + 2 * options_.session_timeout;
  std::unique_lock lock(mutex_);
  if (news_.wait_until(lock, stop, until, [this] { return reply_.has_value(); })) {
    return *std::exchange(reply_, std::nullopt);
  }
  lock.unlock();
  close();
  lost.code = stop.stop_requested() ? ZkCode::stopped : ZkCode::lost;
  lost.error = "no answer";
  return lost;
}

ZkReply ZkClient::get(const std::string& path, bool watch, const std::stop_token& stop) {
  return call(
      [at = full(path), watch](_zhandle* handle, const void* self) {
        return zoo_aget(handle, at.c_str(), watch ? 1 : 0, &Callbacks::data, self);
      },
      stop);
}

ZkReply ZkClient::exists(const std::string& path, bool watch, const std::stop_token& stop) {
  return call(
      [at = full(path), watch](_zhandle* handle, const void* self) {
        return zoo_aexists(handle, at.c_str(), watch ? 1 : 0, &Callbacks::stat, self);
      },
      stop);
}

ZkReply ZkClient::children(const std::string& path, const std::stop_token& stop) {
  return call(
      [at = full(path)](_zhandle* handle, const void* self) {
        return zoo_aget_children(handle, at.c_str(), 0, &Callbacks::names, self);
      },
      stop);
}

ZkReply ZkClient::set(const std::string& path, const std::string& data, std::int32_t version,
                      const std::stop_token& stop) {
  return call(
      [&, at = full(path)](_zhandle* handle, const void* self) {
        return zoo_aset(handle, at.c_str(), data.data(), static_cast<int>(data.size()), version,
                        &Callbacks::stat, self);
      },
      stop);
}

ZkReply ZkClient::create_one(const std::string& path, const std::string& data, bool ephemeral,
                             const std::stop_token& stop) {
  const Access access(options_);
  return call(
      [&](_zhandle* handle, const void* self) {
        return zoo_acreate2(handle, path.c_str(), data.data(), static_cast<int>(data.size()),
                            access.list(), ephemeral ? ZOO_EPHEMERAL : ZOO_PERSISTENT,
                            &Callbacks::created, self);
      },
      stop);
}

ZkReply ZkClient::create(const std::string& path, const std::string& data, bool ephemeral,
                         const std::stop_token& stop) {
  const std::string at = full(path);
  ZkReply reply = create_one(at, data, ephemeral, stop);
  if (reply.code != ZkCode::no_node) return reply;
  for (std::size_t slash = at.find('/', 1); slash != std::string::npos;
       slash = at.find('/', slash + 1)) {
    ZkReply folder = create_one(at.substr(0, slash), "", false, stop);
    // A folder may be there and yet closed to us.
    if (folder.code != ZkCode::ok && folder.code != ZkCode::node_exists &&
        folder.code != ZkCode::not_allowed) {
      return folder;
    }
  }
  return create_one(at, data, ephemeral, stop);
}

ZkReply ZkClient::remove(const std::string& path, std::int32_t version,
                         const std::stop_token& stop) {
  return call(
      [at = full(path), version](_zhandle* handle, const void* self) {
        return zoo_adelete(handle, at.c_str(), version, &Callbacks::done, self);
      },
      stop);
}

ZkReply ZkClient::sync(const std::string& path, const std::stop_token& stop) {
  return call(
      [at = full(path)](_zhandle* handle, const void* self) {
        return zoo_async(
            handle, at.c_str(),
            [](int code, const char* /*path*/, const void* to) { Callbacks::done(code, to); },
            self);
      },
      stop);
}

}  // namespace millrace
