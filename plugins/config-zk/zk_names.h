#pragma once

#include <string>
#include <string_view>

namespace millrace {

/// Where an ensemble is: `host:port,host:port/folder`.
struct ZkServers {
  std::string hosts;   ///< "a:2181,b:2181"
  std::string folder;  ///< empty, or "/folder": every path is below it
};

/// Throws std::invalid_argument.
[[nodiscard]] ZkServers parse_zk_servers(std::string_view text);

/// Why ZooKeeper would not take `path` for a node ("/a/b"); empty if it would.
[[nodiscard]] std::string path_fault(std::string_view path);

/// Why `name` cannot be one part of a path; empty if it can.
[[nodiscard]] std::string name_fault(std::string_view name);

/// The folder of a path that has no fault: "/a" of "/a/b", "/" of "/a".
[[nodiscard]] std::string parent_of(std::string_view path);

/// The longest beginning of `text` of at most `limit` bytes that ends with a whole character.
[[nodiscard]] std::string_view cut_text(std::string_view text, std::size_t limit);

}  // namespace millrace
