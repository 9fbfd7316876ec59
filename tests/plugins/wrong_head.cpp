// Heads that a host must refuse before it calls anything. One is chosen when this is compiled.

#include "millrace/plugin.h"

namespace {
[[noreturn]] const millrace::PluginBody& body() { __builtin_trap(); }
}  // namespace

#define MINOR millrace::kAbiMinor
#if defined(WRONG_ABI)
#define MAGIC MILLRACE_PLUGIN_MAGIC
#define MAJOR 99
#undef MINOR
#define MINOR 0
#define FINGERPRINT MILLRACE_FINGERPRINT
#elif defined(NEWER_MINOR)
#define MAGIC MILLRACE_PLUGIN_MAGIC
#define MAJOR millrace::kAbiMajor
#undef MINOR
#define MINOR millrace::kAbiMinor + 1
#define FINGERPRINT MILLRACE_FINGERPRINT
#elif defined(WRONG_FINGERPRINT)
#define MAGIC MILLRACE_PLUGIN_MAGIC
#define MAJOR millrace::kAbiMajor
#define FINGERPRINT "sdk=" MILLRACE_STRING(MILLRACE_SDK_REVISION) ";compiler=g++ 3"
#else
#define MAGIC \
  { 's', 'o', 'm', 'e', 't', 'h', 'i', 'n' }
#define MAJOR millrace::kAbiMajor
#define FINGERPRINT MILLRACE_FINGERPRINT
#endif

extern "C" MILLRACE_EXPORT const millrace::PluginHead millrace_plugin;
const millrace::PluginHead millrace_plugin = {
    MAGIC, sizeof(millrace::PluginHead), MAJOR, MINOR, FINGERPRINT, "wrong", "0", &body, "9.9.9"};
