#pragma once

#include <cstddef>
#include <cstdint>
#include <version>

#include "millrace/error.h"

/// The version of Millrace these headers belong to.
#define MILLRACE_VERSION "0.1.0"

/// The revision of what C++ host and plugin have in common: layouts, virtual functions, meanings.
/// Raised by every release in which a plugin compiled with the headers of the one before could not
/// run; core/plugin/layout_test.cpp notices most of what asks for it. See docs/abi.md.
#define MILLRACE_SDK_REVISION 1

#define MILLRACE_PLUGIN_MAGIC \
  { 'm', 'i', 'l', 'l', 'r', 'a', 'c', 'e' }

#define MILLRACE_STRING_(x) #x
#define MILLRACE_STRING(x) MILLRACE_STRING_(x)

#if defined(__clang__)
#define MILLRACE_COMPILER_ "clang++ " MILLRACE_STRING(__clang_major__)
#else
#define MILLRACE_COMPILER_ "g++ " MILLRACE_STRING(__GNUC__)
#endif

#if defined(_GLIBCXX_DEBUG)
#define MILLRACE_CONTAINERS_ "debug"
#else
#define MILLRACE_CONTAINERS_ "plain"
#endif

#if defined(__SANITIZE_THREAD__)
#define MILLRACE_SANITIZER_ "thread"
#elif defined(__SANITIZE_ADDRESS__)
#define MILLRACE_SANITIZER_ "address"
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MILLRACE_SANITIZER_ "thread"
#elif __has_feature(address_sanitizer)
#define MILLRACE_SANITIZER_ "address"
#endif
#endif
#if !defined(MILLRACE_SANITIZER_)
#define MILLRACE_SANITIZER_ "none"
#endif

/// What must be equal in host and plugin before C++ may pass between them: `part=value;` for each.
#define MILLRACE_FINGERPRINT \
  "sdk=" MILLRACE_STRING(MILLRACE_SDK_REVISION) ";compiler=" MILLRACE_COMPILER_ \
  ";c++abi=" MILLRACE_STRING(__GXX_ABI_VERSION) ";libstdc++=" MILLRACE_STRING(            \
      _GLIBCXX_RELEASE) ";cxx11-abi=" MILLRACE_STRING(_GLIBCXX_USE_CXX11_ABI)             \
  ";containers=" MILLRACE_CONTAINERS_ ";sanitizer=" MILLRACE_SANITIZER_

namespace millrace {

struct PluginBody;

inline constexpr std::uint16_t kAbiMajor = 1;
inline constexpr std::uint16_t kAbiMinor = 1;

/// The only symbol a plugin exports is a PluginHead named `millrace_plugin`. Its layout is that of
/// C and is only ever appended to (then `size` and the minor number grow). The host reads it and
/// compares magic, ABI and fingerprint before it calls `body`, and reads of a head of an earlier
/// minor number only what that one had.
struct PluginHead {
  char magic[8];
  std::uint32_t size;
  std::uint16_t abi_major;
  std::uint16_t abi_minor;
  const char* fingerprint;
  const char* name;
  const char* version;
  const PluginBody& (*body)();
  const char* built_with;  ///< since 1.1: MILLRACE_VERSION of the headers it was compiled with
};

/// Bytes of a head of ABI 1.0.
inline constexpr std::uint32_t kFirstHeadSize = offsetof(PluginHead, built_with);

}  // namespace millrace
