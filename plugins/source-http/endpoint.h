#pragma once

#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "options.h"

namespace millrace {

/// The address that the option `listen` means. Throws ConfigError("listen", ...).
[[nodiscard]] boost::asio::ip::tcp::endpoint listen_endpoint(boost::asio::io_context& io,
                                                             const std::string& listen);

/// Whether only programs of this machine can reach it.
[[nodiscard]] bool is_local(const boost::asio::ip::address& address);

/// Why nobody should listen there like this: strangers could upload. Empty: all is well.
[[nodiscard]] std::string exposure(const HttpOptions& options,
                                   const boost::asio::ip::tcp::endpoint& endpoint);

}  // namespace millrace
