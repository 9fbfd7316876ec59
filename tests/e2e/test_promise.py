"""Every session that was acknowledged to an agent gets its row, once, whatever happens to the servers and their settings.
At the end a table shows when log, health and metrics reported each fault; no test asserts these times."""
import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
import uuid

import pytest
from millrace import until
from server_flow import DATABASE, Process, Server, Services, Upload, need_plugins

SESSIONS = 120
DELAY = 3
FULL = 24  # packets
# All that expires is short, all that waits for an operator is not.
RECEIVER = {"sessions.delay": f"{DELAY}s", "queue.delay": f"{DELAY}s", "sessions.expire": "11s", "sessions.sweep_after": "10s",
            "sessions.remember": "1s", "sessions.idle": "5s"}
ANALYSER = {"queue.delay": f"{DELAY}s", "claim.overdue": "4s", "claim.lease": "8s", "model.workers": "1"}


def traffic(sessions: int, seed: int) -> bytes:
    """UDP sessions of three packets, every tenth of a full session's number, at the present time."""
    dice = random.Random(seed)
    now = time.time_ns()
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for session in range(sessions):
        for _ in range(FULL if session % 10 == 0 else 3):
            payload = dice.randbytes(60)
            udp = struct.pack(">HHHH", 1024 + session, 53, 8 + len(payload), 0) + payload
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes((10, 0, seed, 1)),
                             bytes((10, 1, 0, 1))) + udp
            frame = bytes(12) + b"\x08\x00" + ip
            now += 1000
            out.append(struct.pack("<IIII", now // 10**9, now % 10**9, len(frame), len(frame)) + frame)
    return b"".join(out)


@dataclasses.dataclass
class Shown:
    """When a fault was first reported, in seconds after it, and how."""
    log: tuple[float, str] | None = None
    health: tuple[float, str] | None = None
    metric: tuple[float, str] | None = None


class Watch:
    """Looks at processes from the moment of a fault on."""

    def __init__(self, processes: list[Process], whole_log: bool):
        self.processes, self.shown, self.begin = processes, Shown(), time.monotonic()
        self.lengths = {} if whole_log else {process.log: len(process.text()) for process in processes}
        self.metrics = {process.log: self._metrics(process) for process in processes}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @staticmethod
    def _metrics(process: Process) -> dict[str, str]:
        """The conditions, and the counters that are about faults."""
        text = process.get("/metrics", 5)[1] if process.process.poll() is None else ""
        return dict(re.findall(r'^(millrace_(?:ready|condition|stage_retrying|(?:stage_count|items_dropped)_total\{[^}]*name="'
                               r"(?:blocked|lost|overdue|announced-again|republished|reconnects|reconnected)\")\S*) (\S+)$",
                               text, re.M))

    def _look(self, process: Process):
        after = time.monotonic() - self.begin
        name = process.log.stem
        if not self.shown.log:
            new = process.text()[self.lengths.get(process.log, 0):]
            line = re.search(r"^.*(?:warning|error): .*$", new, re.M)
            if line:
                self.shown.log = after, f"{name}: {line.group()[:160]}"
        if process.process.poll() is not None or process.log not in self.metrics:
            return
        with contextlib.suppress(AssertionError, OSError):
            if not self.shown.health:
                status, text = process.get("/health", 5)
                if status != 200:
                    self.shown.health = after, f"{name}: {status} {text.strip()[:200]}"
            if not self.shown.metric:
                changed = [f"{key} {value}" for key, value in self._metrics(process).items()
                           if value != self.metrics[process.log].get(key)]
                if changed:
                    self.shown.metric = after, f"{name}: {changed[0]}"

    def _run(self):
        while not self.stop.wait(0.2):
            for process in list(self.processes):
                self._look(process)

    def end(self) -> Shown:
        self.stop.set()
        self.thread.join()
        return self.shown


@pytest.fixture(scope="module")
def table(request):
    """What each test found; printed when all have run."""
    rows: list[tuple[str, str, Shown]] = []
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\nfault | rows | log after | health after | metric after")
        for fault, count, shown in rows:
            cells = [f"{found[0]:.1f} s" if found else "-" for found in (shown.log, shown.health, shown.metric)]
            print(" | ".join((fault, count, *cells)))
            for found in (shown.log, shown.health, shown.metric):
                if found:
                    print(f"    {found[1]}")


@pytest.fixture(scope="module")
def shared_services(tmp_path_factory):
    need_plugins()
    services = Services(tmp_path_factory.mktemp("promise") / "services", "redis", "rabbitmq", DATABASE)
    yield services
    services.stop()


class Flow(Server):
    """Receivers and analysers with keys, queues and an agent of their own on servers that tests share."""

    def __init__(self, folder: pathlib.Path, services: Services, redis: Services | None = None):
        super().__init__(folder, services)
        self.name = "p" + uuid.uuid4().hex[:8]
        self.redis = redis or services
        self.sent = 0
        self.watch: Watch | None = None

    def _settings(self, part: dict[str, str], stage: str, more: dict[str, str]) -> dict[str, str]:
        return {**part, "queue.name": self.name, f"{stage}.prefix": self.name,
                f"{stage}.server": self.redis.address["REDIS"], **more}

    def receiver(self, name="receiver", env=None, **more) -> Process:
        more = {key.replace("__", "."): value for key, value in more.items()}
        return self._ready(super().receiver(name, env=env, **self._settings(RECEIVER, "sessions", more)))

    def analyser(self, name="analyser", env=None, **more) -> Process:
        more = {key.replace("__", "."): value for key, value in more.items()}
        return self._ready(super().analyser(name, env=env, **self._settings(ANALYSER, "claim", more)))

    @staticmethod
    def _ready(process: Process) -> Process:
        def ready() -> bool:
            assert process.process.poll() is None, process.text()
            with contextlib.suppress(OSError):  # it may have ended in between
                return process.get("/health")[0] == 200
            return False
        until(ready, 120, f"{process.log}: ready")
        return process

    def upload(self, sessions=SESSIONS) -> Upload:
        """Begins to post sessions, as an agent that goes on until it is answered 200."""
        self.sent += 1
        body = traffic(sessions, self.sent)
        return Upload(self.name, [body], self.addresses, 120, first=self.sent).start()

    def post(self, sessions=SESSIONS):
        self.upload(sessions).join()

    def eval(self, code: str):
        self.services.must("rabbitmqctl", "eval", code)

    def each_queue(self, function: str):
        """Calls an Erlang function of a queue's record on every queue of ours."""
        self.eval(f'[({function})(Q) || Q <- rabbit_amqqueue:list(), '
                  f'string:prefix(element(4, amqqueue:get_name(Q)), <<"{self.name}">>) =/= nomatch].')

    def fault(self, whole_log=False):
        """Watches from now on what reports the fault; if it was there from the start, the log did earlier."""
        self.watch = Watch(self.processes, whole_log)

    def found(self) -> list[tuple[int, int, int]]:
        return [tuple(map(int, row)) for row in self.services.sql(
            "SELECT COUNT(*), COUNT(DISTINCT session), COALESCE(SUM(packets), 0) FROM sessions "
            f"WHERE agent = '{self.name}'")]

    def complete(self, table, fault: str, patience: float = 90):
        """Every session has its row, once, with all of its packets."""
        sessions = self.sent * SESSIONS
        packets = self.sent * (SESSIONS // 10 * FULL + (SESSIONS - SESSIONS // 10) * 3)
        try:
            until(lambda: self.found()[0][0] >= sessions, patience, f"{sessions} rows")
        except AssertionError as error:
            raise AssertionError(f"{self.found()} of {sessions} rows\n" +
                                 "\n".join(f"{process.log.stem}:\n{process.text()[-3000:]}"
                                           for process in self.processes)) from error
        finally:
            shown = self.watch.end() if self.watch else Shown()
            table.append((fault, f"{self.found()[0][0]} of {sessions}", shown))
        assert self.found() == [(sessions, sessions, packets)]


@pytest.fixture
def flow(tmp_path, shared_services):
    with contextlib.ExitStack() as stack:
        def make(redis: Services | None = None) -> Flow:
            made = Flow(tmp_path, shared_services, redis)
            stack.callback(made.end)
            return made
        yield make


@pytest.fixture
def own_redis(tmp_path):
    """A Redis that a test may harm."""
    made: list[Services] = []

    def make(folder: pathlib.Path, *options: str) -> Services:
        made.append(Services(folder, "redis", *(word for option in options for word in ("--option", f"redis={option}"))))
        return made[-1]
    yield make
    for services in made:
        services.stop()


def announced(receiver: Process):
    """The broker has tickets."""
    until(lambda: receiver.counted("queue.in", "confirmed") > 0, 60, "tickets in the broker")


def test_queues_that_are_deleted(flow, table):
    flow = flow()
    receiver = flow.receiver()
    analyser = flow.analyser()
    # Stopped, so that the queues are not empty when they are deleted.
    analyser.process.send_signal(signal.SIGSTOP)
    flow.post()
    announced(receiver)
    flow.each_queue('fun(Q) -> rabbit_amqqueue:delete(Q, false, false, <<"test">>) end')
    analyser.process.send_signal(signal.SIGCONT)
    flow.fault(whole_log=True)
    flow.post()
    flow.complete(table, "queues deleted")


def test_queues_that_are_purged(flow, table):
    flow = flow()
    receiver = flow.receiver()
    flow.post()
    announced(receiver)
    flow.each_queue("fun(Q) -> rabbit_amqqueue:purge(Q) end")
    flow.analyser()
    flow.fault()
    flow.complete(table, "queues purged")


def test_consumers_that_the_broker_loses_silently(flow, table):
    flow = flow()
    flow.receiver()
    flow.analyser(queue__check_queues="2s")
    flow.fault()
    flow.each_queue("fun(Q) -> [gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, element(1, C), element(2, C), undefined, "
                    '<<"test">>}) || C <- rabbit_amqqueue:consumers(Q)] end')
    flow.post()
    flow.complete(table, "consumers gone")


def test_a_memory_alarm(flow, table):
    flow = flow()
    receiver = flow.receiver()
    flow.analyser()
    flow.post()
    flow.services.must("rabbitmqctl", "set_vm_memory_high_watermark", "0.00001")
    try:
        flow.fault()
        upload = flow.upload()
        until(lambda: receiver.counted("queue.in", "blocked") > 0, 60, "the alarm in the metrics")
        # Longer than --blocked, so that health reports it.
        time.sleep(12)
    finally:
        flow.services.must("rabbitmqctl", "set_vm_memory_high_watermark", "0.4")
    upload.join()
    flow.complete(table, "memory alarm for 12 s")


def test_no_analyser_for_longer_than_every_expiry(flow, table):
    flow = flow()
    flow.receiver()
    flow.fault()
    flow.post()
    time.sleep(25)  # the fault itself: twice the longest expiry
    flow.analyser()
    flow.complete(table, "no analyser for 25 s, expiries of 11 s")


def test_no_database_for_longer_than_every_expiry(flow, table):
    flow = flow()
    flow.receiver()
    flow.analyser()
    flow.services.must("stop", DATABASE)
    try:
        flow.fault()
        flow.post()
        time.sleep(25)  # the fault itself
    finally:
        flow.services.must("start", DATABASE)
    flow.complete(table, "no database for 25 s, expiries of 11 s")


def test_an_eviction_policy_that_changes_while_all_runs(flow, own_redis, table, tmp_path):
    redis = own_redis(tmp_path / "redis", "--maxmemory 64mb --maxmemory-policy noeviction")
    flow = flow(redis)
    receiver = flow.receiver()
    flow.analyser()
    flow.post()
    flow.fault()
    redis.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    until(lambda: receiver.get("/health")[0] == 503, 60, f"{receiver.log}: not ready")
    redis.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    until(lambda: receiver.get("/health")[0] == 200, 60, f"{receiver.log}: ready again")
    flow.post()
    flow.complete(table, "eviction policy changed")


def test_a_start_with_an_eviction_policy_is_refused(flow, own_redis, tmp_path):
    redis = own_redis(tmp_path / "redis", "--maxmemory 64mb --maxmemory-policy allkeys-lru")
    made = flow(redis)
    for start in (made.receiver, made.analyser):
        with pytest.raises(AssertionError, match=r"maxmemory-policy"):
            start()


def test_buckets_that_differ(flow, table):
    flow = flow()
    flow.receiver(sessions__buckets="16")
    flow.fault()
    flow.post()
    wrong = flow.start("wrong", "queue..", **{**flow._settings(ANALYSER, "claim", {}), "claim.buckets": "1"})
    assert wrong.process.wait(60) != 0
    assert "buckets" in wrong.text()
    flow.analyser(claim__buckets="16")
    flow.complete(table, "buckets 16 and 1")


@pytest.mark.parametrize("of_receiver, of_analyser", [("3s", "1s"), ("3s", "14min")])
def test_a_delay_that_differs(flow, table, of_receiver, of_analyser):
    flow = flow()
    flow.receiver(sessions__delay=of_receiver, queue__delay=of_receiver)
    flow.analyser(queue__delay=of_analyser)
    flow.fault()
    flow.post()
    flow.complete(table, f"delay {of_receiver} and {of_analyser}")
    assert "this stage's 'delay'" in flow.analysers[0].text()


def test_a_full_disk_of_redis(flow, own_redis, table, tmp_path):
    folder = tmp_path / "redis"
    (folder / "redis").mkdir(parents=True)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder / "redis"], capture_output=True, text=True,
                           check=False)
    if mount.returncode != 0:
        pytest.skip(f"no small disk can be made here: {mount.stderr.strip()}")
    try:
        redis = own_redis(folder)
        flow = flow(redis)
        flow.receiver()
        flow.analyser()
        flow.post()
        flow.fault()
        filler = folder / "redis" / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        upload = flow.upload()
        until(lambda: any("MISCONF" in process.text() or process.get("/health")[0] == 503 for process in flow.processes), 60,
              "a log or health that reports it")
        # A process that starts meanwhile waits.
        flow.start("late", "queue..", **flow._settings(ANALYSER, "claim", {}))
        time.sleep(12)
        filler.unlink()
        upload.join()
        flow.complete(table, "Redis's disk full for 12 s")
        assert all(process.process.poll() is None for process in flow.processes)
        flow.end()
        redis.stop()
    finally:
        subprocess.run(["umount", "-l", folder / "redis"], check=False)


WRONG_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long wrong(void) { const char* by = getenv("WRONG_BY"); return by ? atol(by) : 0; }
int clock_gettime(clockid_t id, struct timespec* out) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(id, out);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) out->tv_sec += wrong();
  return result;
}
int gettimeofday(struct timeval* out, void* zone) {
  static int (*real)(struct timeval*, void*);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  const int result = real(out, zone);
  out->tv_sec += wrong();
  return result;
}
time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory):
    """A library that shifts the wall clock of a process."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(WRONG_CLOCK, encoding="ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c", "-ldl"], check=True)
    return folder / "clock.so"


def wrong_clocks(flow: Flow, table, fault: str, of_receiver: dict[str, str], of_analyser: dict[str, str]):
    """Small messages, and few at a time, which only the queue brings: an analyser that held each for the whole delay would
    need six minutes."""
    flow.receiver(env=of_receiver, sessions__delay="6s", queue__delay="6s", queue__bundle="1")
    flow.analyser(env=of_analyser, queue__delay="6s", queue__prefetch="2", claim__overdue="1h", store__max_wait="50ms")
    flow.fault(whole_log=True)
    flow.post()
    flow.complete(table, fault, 60)


@pytest.mark.parametrize("seconds", [60, 3600, -3600])
def test_a_receivers_clock_that_is_wrong(flow, wrong_clock, table, seconds):
    flow = flow()
    wrong_clocks(flow, table, f"receiver's clock wrong by {seconds} s",
                 {"LD_PRELOAD": str(wrong_clock), "WRONG_BY": str(seconds)}, {})
    assert re.search(r"queue.in: this machine's clock is .* s (ahead of|behind) the broker's", flow.receivers[0].text())


def test_an_analysers_clock_that_is_wrong(flow, wrong_clock, table):
    flow = flow()
    wrong_clocks(flow, table, "analyser's clock wrong by -3600 s", {},
                 {"LD_PRELOAD": str(wrong_clock), "WRONG_BY": "-3600"})
    assert re.search(r"queue.out: this machine's clock is .* s behind the broker's", flow.analysers[0].text())
