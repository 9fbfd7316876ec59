#pragma once

#include <memory>

#include <gtest/gtest.h>

#include "support/certificates.h"
#include "support/services.h"

namespace millrace::testing {

/// The tests of `Base` on a MariaDB or MySQL that has certificates. `Base` says with `server`
/// which, and keeps it in `services`.
template <class Base>
class TlsServerTest : public Base {
 protected:
  static void SetUpTestSuite() {
    certificates() = std::make_unique<Certificates>();
    if (!certificates()->made()) return;
    Base::services() = std::make_unique<Services>(Services::Names{Base::server()},
                                                  certificates()->database_options(Base::server()));
  }
  static void TearDownTestSuite() {
    Base::services().reset();
    certificates().reset();
  }
  static std::unique_ptr<Certificates>& certificates() {
    static std::unique_ptr<Certificates> made;
    return made;
  }
  void SetUp() override {
    if (!certificates()->made()) GTEST_SKIP() << "SKIPPED: openssl made no certificates";
    Base::SetUp();
  }
};

}  // namespace millrace::testing
