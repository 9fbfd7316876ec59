#include "run/control.h"

#include <algorithm>

#include <sys/socket.h>
#include <sys/uio.h>

namespace millrace::host {

bool Control::send(Message kind, std::string_view text) const noexcept {
  char head = static_cast<char>(kind);
  iovec parts[] = {{&head, 1}, {const_cast<char*>(text.data()), std::min(text.size(), kLongest)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  // A supervisor that is gone is seen where the descriptor is polled.
  return ::sendmsg(descriptor_, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

void Control::metrics(std::string_view text) const noexcept {
  while (text.size() > kLongest) {
    if (!send(Message::metrics_part, text.substr(0, kLongest))) return;
    text.remove_prefix(kLongest);
  }
  send(Message::metrics, text);
}

}  // namespace millrace::host
