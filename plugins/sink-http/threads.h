#pragma once

#include <csignal>
#include <thread>
#include <utility>

#include <pthread.h>

namespace millrace {

/// A thread that no signal is delivered to, whatever libraries do in it; it takes a stop_token. The
/// function must not throw.
template <class F>
std::jthread start_thread(F function) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  struct Restore {
    const sigset_t& mask;
    ~Restore() { pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
  } const restore{before};
  return std::jthread(std::move(function));
}

}  // namespace millrace
