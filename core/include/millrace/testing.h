#pragma once

/// What a plugin's tests need. Link `millrace-testing`; millrace_add_plugin does so for TESTS.
///
///   testing::Driven<S>      drives a stage as the host does: batches, time, receipts, the end
///   testing::DrivenQueue    both halves of a queue
///   testing::configured     options in the pipeline file's syntax; testing::problems: what `check`
///   says testing::TestContext    keeps what a stage reports; its clock moves when the test says so
///   testing::Recorder       keeps what a stage pushes; lets receipts fail
///   testing::WatchedReceipt a receipt that can be asked
///   testing::Faults         throws on the n-th call
///   testing::Packets, session, verdict, ticket, sessions_of    items

#include "millrace/testing/configured.h"
#include "millrace/testing/context.h"
#include "millrace/testing/driven.h"
#include "millrace/testing/items.h"
#include "millrace/testing/recorder.h"
