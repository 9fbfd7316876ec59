#include "millrace/plugin.h"

#include "sink_http.h"

using namespace millrace;
using namespace std::chrono_literals;

MILLRACE_PLUGIN(
    "sink-http", MILLRACE_VERSION,
    sink<SinkHttp, UploadOptions>(
        "sink-http", "Uploads packets to a receiver by HTTP, in chunks that survive an outage",
        option<&UploadOptions::url>(
            "url", "the receiver, http:// or https://; without a path /v1/captures is meant")
            .required(),
        option<&UploadOptions::agent>(
            "agent",
            "name of this agent, which keeps its sessions apart from those of others; empty: the "
            "name of the machine"),
        option<&UploadOptions::spool>(
            "spool",
            "folder for chunks that are not delivered yet, made if it is not there (its parent "
            "must be), for this stage alone; \"tmp\": files without a name in the system's folder "
            "for temporary files, which vanish with the process")
            .required(),
        option<&UploadOptions::spool_bytes>(
            "spool_bytes", "size of all chunks on the disk, rejected and damaged ones included")
            .between(128_KiB, {std::uint64_t{1} << 44U}),
        option<&UploadOptions::when_full>(
            "when_full",
            "what is dropped when the spool or the disk is full: chunks that have waited for "
            "longest, or the packets that come; rejected and damaged ones go first in any case")
            .choices({{"drop-oldest", WhenFull::drop_oldest},
                      {"drop-newest", WhenFull::drop_newest}}),
        option<&UploadOptions::keep_rejected>(
            "keep_rejected",
            "size of the rejected and damaged chunks that are kept, the latest ones; \"0B\": none")
            .between({0}, {std::uint64_t{1} << 44U}),
        option<&UploadOptions::chunk_bytes>("chunk_bytes",
                                            "size of a chunk at most, before compression")
            .between(64_KiB, 1_GiB),
        option<&UploadOptions::chunk_age>(
            "chunk_age", "a chunk is closed at the latest so long after its first packet came")
            .between(0ns, 24h),
        option<&UploadOptions::flush_bytes>(
            "flush_bytes",
            "packets wait in memory until so many bytes of them are together; then they are "
            "compressed and written")
            .between(4_KiB, 4_MiB),
        option<&UploadOptions::flush_every>(
            "flush_every", "they wait no longer than this; a kill -9 loses what is in memory")
            .between(0ns, 1h),
        option<&UploadOptions::level>("level", "of compression with zstd").between(1, 19),
        option<&UploadOptions::uploads>(
            "uploads",
            "uploads at a time. With more than one, chunks can arrive out of order, and the "
            "packets of a session that goes over two chunks with them")
            .between(1, 64),
        option<&UploadOptions::token>("token", "bearer token").secret(),
        option<&UploadOptions::token_file>(
            "token_file",
            "file with the bearer token; read at the start, and again after it was refused"),
        option<&UploadOptions::ca>(
            "ca",
            "PEM file with the authorities of the receiver's certificate, in "
            "place of the system's"),
        option<&UploadOptions::certificate>("certificate",
                                            "PEM file with this agent's certificate and its chain"),
        option<&UploadOptions::key>("key", "PEM file with the certificate's key"),
        option<&UploadOptions::connect_timeout>("connect_timeout",
                                                "time for a connection, its TLS handshake included")
            .between(1ms, 1h),
        option<&UploadOptions::answer_timeout>(
            "answer_timeout",
            "an upload is broken off when no byte has gone or come for so long; more than the "
            "receiver takes to deliver a chunk")
            .between(1ms, 24h),
        option<&UploadOptions::retry_first>(
            "retry_first", "after a failure: a pause of up to this, at random; doubles each time")
            .between(1ms, 1h),
        option<&UploadOptions::retry_max>("retry_max", "up to this").between(1ms, 24h),
        option<&UploadOptions::refused_pause>(
            "refused_pause",
            "pause after an answer that somebody has to do something about: 401, 403, 407, a "
            "redirection, a certificate that is not trusted")
            .between(1ms, 24h),
        option<&UploadOptions::retry_after_max>("retry_after_max",
                                                "what a receiver's Retry-After may ask for at most")
            .between(0ns, 24h),
        option<&UploadOptions::finish>(
            "finish",
            "at the end: time to upload what waits; then it stays in the folder, or is dropped and "
            "counted with \"tmp\". Less than --drain")
            .between(0ns, 24h))
        .checked(&check_upload_options)
        .aggregates()
        .single("it writes one chunk at a time; see 'uploads'"))
