#pragma once

#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>

#include "hub.h"

namespace millrace {

/// Serves one connection until it ends; on the socket's executor, which must be a strand. `tls` may
/// be null; it and `hub` must outlive the coroutine.
[[nodiscard]] boost::asio::awaitable<void> serve(Hub& hub, boost::asio::ssl::context* tls,
                                                 boost::asio::ip::tcp::socket socket);

}  // namespace millrace
