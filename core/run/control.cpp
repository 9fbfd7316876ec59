#include "run/control.h"

#include <algorithm>

#include <sys/socket.h>
#include <sys/uio.h>

namespace millrace::host {

void Control::send(Message kind, std::string_view text) const noexcept {
  char head = static_cast<char>(kind);
  iovec parts[] = {{&head, 1}, {const_cast<char*>(text.data()), std::min(text.size(), kLongest)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  // A supervisor that is gone is seen where the descriptor is polled.
  static_cast<void>(::sendmsg(descriptor_, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

}  // namespace millrace::host
