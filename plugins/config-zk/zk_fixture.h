#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zookeeper/zookeeper.h>

#include "millrace/testing.h"

#include "support/services.h"

namespace millrace {

using namespace std::chrono_literals;

/// Polls until `holds` does.
inline bool eventually(const std::function<bool()>& holds, std::chrono::seconds patience = 30s) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

inline bool says(const testing::TestContext& context, const std::string& part) {
  return eventually([&] {
    for (const auto& [level, text] : context.messages()) {
      if (text.find(part) != std::string::npos) return true;
    }
    return false;
  });
}

/// A second, real client: the library's blocking calls, and nothing of the plugin.
class Other {
 public:
  explicit Other(const std::string& servers, const std::string& auth = "") {
    handle_.reset(zookeeper_init2(servers.c_str(), &Other::event, 10000, nullptr, this, 0,
                                  [](const char*) {}));
    if (!handle_) throw std::runtime_error("no ZooKeeper client for " + servers);
    if (!auth.empty()) {
      zoo_add_auth(handle_.get(), "digest", auth.data(), static_cast<int>(auth.size()), nullptr,
                   nullptr);
    }
    if (!eventually([&] { return zoo_state(handle_.get()) == ZOO_CONNECTED_STATE; }, 60s)) {
      throw std::runtime_error("no connection with " + servers);
    }
  }

  /// The node's data, or the error in angle brackets.
  std::string get(const std::string& path) {
    std::string data(1U << 20U, '\0');
    int size = static_cast<int>(data.size());
    const int code = again([&] {
      size = static_cast<int>(data.size());
      return zoo_get(handle_.get(), path.c_str(), 0, data.data(), &size, nullptr);
    });
    if (code != ZOK) return '<' + std::string(zerror(code)) + '>';
    return data.substr(0, static_cast<std::size_t>(std::max(size, 0)));
  }
  /// Makes the node and its folders if need be. Returns the transaction.
  std::uint64_t put(const std::string& path, const std::string& data) {
    Stat stat{};
    int code = again([&] {
      return zoo_set2(handle_.get(), path.c_str(), data.data(), static_cast<int>(data.size()), -1,
                      &stat);
    });
    if (code == ZNONODE) {
      for (std::size_t slash = path.find('/', 1); slash != std::string::npos;
           slash = path.find('/', slash + 1)) {
        create(path.substr(0, slash), "");
      }
      code = create(path, data);
      zoo_exists(handle_.get(), path.c_str(), 0, &stat);
    }
    if (code != ZOK) throw std::runtime_error("put " + path + ": " + zerror(code));
    return static_cast<std::uint64_t>(stat.mzxid);
  }
  int create(const std::string& path, const std::string& data, int flags = 0,
             const ACL_vector* acl = &ZOO_OPEN_ACL_UNSAFE) {
    return zoo_create(handle_.get(), path.c_str(), data.data(), static_cast<int>(data.size()), acl,
                      flags, nullptr, 0);
  }
  int set(const std::string& path, const std::string& data) {
    return zoo_set(handle_.get(), path.c_str(), data.data(), static_cast<int>(data.size()), -1);
  }
  void remove(const std::string& path) { zoo_delete(handle_.get(), path.c_str(), -1); }
  void remove_all(const std::string& path) {
    for (const std::string& name : children(path)) remove_all(path + '/' + name);
    remove(path);
  }
  std::vector<std::string> children(const std::string& path) {
    String_vector names{};
    std::vector<std::string> list;
    if (zoo_get_children(handle_.get(), path.c_str(), 0, &names) != ZOK) return list;
    for (int i = 0; i < names.count; ++i) list.emplace_back(names.data[i]);
    deallocate_String_vector(&names);
    std::ranges::sort(list);
    return list;
  }
  std::optional<Stat> stat(const std::string& path) {
    Stat stat{};
    const int code = again([&] { return zoo_exists(handle_.get(), path.c_str(), 0, &stat); });
    return code == ZOK ? std::optional(stat) : std::nullopt;
  }
  void protect(const std::string& path, const ACL_vector& acl) {
    if (zoo_set_acl(handle_.get(), path.c_str(), -1, &acl) != ZOK) {
      throw std::runtime_error("cannot protect " + path);
    }
  }
  /// "scheme:id:permissions" of each entry.
  std::vector<std::string> acl(const std::string& path) {
    ACL_vector entries{};
    Stat stat{};
    std::vector<std::string> list;
    if (zoo_get_acl(handle_.get(), path.c_str(), &entries, &stat) != ZOK) return list;
    for (int i = 0; i < entries.count; ++i) {
      const ACL& entry = entries.data[i];
      list.push_back(std::string(entry.id.scheme) + ':' + entry.id.id + ':' +
                     std::to_string(entry.perms));
    }
    deallocate_ACL_vector(&entries);
    return list;
  }
  /// Empty if the node is not there or has something else.
  nlohmann::json json(const std::string& path) {
    const nlohmann::json value = nlohmann::json::parse(get(path), nullptr, false);
    return value.is_object() ? value : nlohmann::json::object();
  }

 private:
  static void event(zhandle_t* /*handle*/, int /*type*/, int /*state*/, const char* /*path*/,
                    void* /*self*/) {}
  /// What can be asked twice, past a connection that breaks.
  static int again(const std::function<int()>& call) {
    int code = ZCONNECTIONLOSS;
    eventually([&] {
      code = call();
      return code != ZCONNECTIONLOSS && code != ZOPERATIONTIMEOUT;
    });
    return code;
  }
  struct Close {
    void operator()(zhandle_t* handle) const { zookeeper_close(handle); }
  };
  std::unique_ptr<zhandle_t, Close> handle_;
};

/// One real server for all tests of a suite; each has a folder of its own in it.
class ZkTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { start({"zookeeper"}); }
  static void TearDownTestSuite() { services().reset(); }
  static void start(const testing::Services::Names& names) {
    services() = std::make_unique<testing::Services>(names);
  }
  static std::unique_ptr<testing::Services>& services() {
    static std::unique_ptr<testing::Services> running;
    return running;
  }
  void SetUp() override {
    if (!services()->missing().empty()) GTEST_SKIP() << services()->missing();
    folder_ = std::string("/") + ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  [[nodiscard]] static std::string server() { return services()->address("zookeeper"); }

  std::string folder_;
  testing::TestContext context_;
};

}  // namespace millrace
