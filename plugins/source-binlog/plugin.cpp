#include "millrace/plugin.h"

#include "source_binlog.h"

using namespace millrace;

MILLRACE_PLUGIN(
    "source-binlog", MILLRACE_VERSION,
    source<SourceBinlog, BinlogOptions>(
        "source-binlog", "Changes of table rows from the binary log of a MariaDB server",
        option<&BinlogOptions::server>(
            "server",
            "mysql://user:password@host:port/database, or "
            "mysql://user@/database?socket=/path/of/socket; the port is 3306 if it is not given, "
            "and what would be mistaken for a part of the form is written %XX")
            .required()
            .secret(),
        option<&BinlogOptions::password>("password",
                                         "the user's password, if it is not in 'server'")
            .secret(),
        option<&BinlogOptions::tables>(
            "tables", "the only tables to take, each as database.table; none: all"),
        option<&BinlogOptions::state>(
            "state",
            "file that keeps the position; a stage has its own, and the folder must be there")
            .required(),
        option<&BinlogOptions::start>(
            "start",
            "where to begin without that file; now: with the next change; oldest: with the oldest "
            "log that the server has")
            .choices({{"now", StartAt::now}, {"oldest", StartAt::oldest}}),
        option<&BinlogOptions::on_gap>(
            "on_gap",
            "when the server does not have the logs behind the position any more; stop ends the "
            "pipeline; start counts it, logs it, and goes on where 'start' says")
            .choices({{"stop", OnGap::stop}, {"start", OnGap::start}}),
        option<&BinlogOptions::on_bad>(
            "on_bad",
            "at changes of such a table that cannot be read; skip counts them, logs where they "
            "are, and goes on; stop ends the pipeline, and the next start begins with them")
            .choices({{"skip", OnBad::skip}, {"stop", OnBad::stop}}),
        option<&BinlogOptions::server_id>(
            "server_id",
            "number that no other replica of the server may have; 0: one made of the machine's "
            "name and 'state'"),
        option<&BinlogOptions::batch>(
            "batch",
            "changes given on together at most, but for the rows of one event, which stay "
            "together; as many more are read ahead")
            .between(1, 65536),
        option<&BinlogOptions::window>(
            "window", "batches given on and not yet delivered at most; then nothing is read")
            .between(1, 65536),
        option<&BinlogOptions::retry_pause>(
            "retry_pause",
            "how long it rests before the log is read again from a batch that failed")
            .between(0ms, 1h),
        option<&BinlogOptions::commit_every>("commit_every",
                                             "time between two writings of the position")
            .between(0ms, 1h),
        option<&BinlogOptions::heartbeat>(
            "heartbeat",
            "how often the server says that it is there when nothing changes; after three of these "
            "without a word it is given up, and connected to again")
            .between(1s, 1h),
        option<&BinlogOptions::connect_timeout>(
            "connect_timeout",
            "how long one attempt to connect, a question to the server and an end in the midst of "
            "these may take; in whole seconds, rounded up")
            .between(1s, 1h),
        option<&BinlogOptions::wait>("wait",
                                     "how long the start waits for a server that cannot be "
                                     "reached; later it is waited for without end")
            .between(0ms, 24h),
        option<&BinlogOptions::finish>(
            "finish", "how long an end waits for the delivery of what was given on")
            .between(0ms, 1h),
        option<&BinlogOptions::tls>(
            "tls",
            "off: no encryption; required: encrypted, whoever the server is; verify: the server's "
            "certificate must be from 'tls_ca' and bear the host's name")
            .choices({{"off", Tls::off}, {"required", Tls::required}, {"verify", Tls::verify}}),
        option<&BinlogOptions::tls_ca>("tls_ca", "file of the authority's certificate (PEM)"),
        option<&BinlogOptions::tls_cert>("tls_cert",
                                         "file of this client's certificate, if the server asks "
                                         "for one"),
        option<&BinlogOptions::tls_key>("tls_key", "file of the key of 'tls_cert'"))
        .single("keeps one position in the log")
        .checked(&check_binlog_options))
