"""Packets that an agent uploads: two of the real program, the agent and the receiver."""
import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest
from millrace import BUILD, CAPTURE, PRINT, PROGRAM, SAMPLE, SESSIONS, SOURCE, pipeline, run
from test_http import QUEUED, RECEIVE, SINK, receiver, records_of, sessions

if not (BUILD / "lib/millrace/plugins/sink-http.so").exists():
    pytest.skip("sink-http is not built", allow_module_level=True)

UPLOAD = """
[stage.upload]
use         = "sink-http"
from        = "capture"
url         = "http://127.0.0.1:{port}"
agent       = "one"
spool       = "{spool}"
chunk_bytes = "64KiB"
flush_bytes = "4KiB"
chunk_age   = "{age}"
retry_first = "50ms"
retry_max   = "200ms"
finish      = "{finish}"
"""
STDIN = """
[stage.capture]
use   = "source-pcap"
file  = "-"
batch = 1
"""


def folder(path):
    path.mkdir()
    return path


def agent_file(tmp_path, port, capture=CAPTURE, age="1s", finish="60s", spool=None, name="agent"):
    place = tmp_path / name
    place.mkdir(exist_ok=True)
    return pipeline(place, capture, UPLOAD.format(port=port, age=age, finish=finish,
                                                  spool=spool or tmp_path / "spool"))


@contextlib.contextmanager
def fed_agent(path):
    """An agent that captures what the test writes to it."""
    process = subprocess.Popen([str(PROGRAM), "run", str(path)], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=SOURCE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def feed(process, data):
    process.stdin.write(data)
    process.stdin.flush()


def until(holds, patience=60):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def spool_files(spool):
    return sorted(path for path in spool.glob("*") if path.name != "lock" and path.is_file())


@pytest.fixture(name="zstd")
def _zstd():
    if not shutil.which("zstd"):
        pytest.skip("needs zstd")


def spooled(spool):
    """Bytes of captures in the spool, unpacked."""
    total = 0
    for path in spool_files(spool):
        with contextlib.suppress(FileNotFoundError):  # it has got its final name meanwhile
            packed = path.read_bytes()
            total += len(subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=False).stdout)
    return total


def data_of(capture):
    """Times and bytes: what names a packet whatever capture it is in. Times in nanoseconds."""
    unit = 1 if capture.read_bytes()[:4] == b"\x4d\x3c\xb2\xa1" else 1000
    rows = []
    for record in records_of(capture):
        seconds, fraction = struct.unpack_from("<II", record)
        rows.append((seconds * 10**9 + fraction * unit, record[16:]))
    return rows


def split(capture, share):
    """The capture's beginning, up to a share of its records, and the rest."""
    head, records = capture.read_bytes()[:24], list(records_of(capture))
    cut = int(len(records) * share)
    return head + b"".join(records[:cut]), b"".join(records[cut:]), cut


def test_the_sessions_are_those_of_a_direct_run(tmp_path):
    plain = run("run", pipeline(folder(tmp_path / "plain"), CAPTURE, SESSIONS, PRINT), "--var", f"CAPTURE={SAMPLE}")
    # Long enough for the queue to be emptied by the end of the input and not by the clock.
    path = pipeline(folder(tmp_path / "server"), RECEIVE, QUEUED.format(delay="1min"))
    with receiver(path) as server:
        result = run("run", agent_file(tmp_path, server.port), "--var", f"CAPTURE={SAMPLE}")
        code, out, log = server.stop()
    assert result.returncode == 0, result.stderr
    assert code == 0, log
    count = len(data_of(SAMPLE))
    assert f"uploaded-packets {count}" in result.stderr
    assert int(re.search(r"uploaded (\d+),", result.stderr).group(1)) >= 9
    assert f"packets {count}," in log
    assert sessions(out) == sessions(plain.stdout)
    assert spool_files(tmp_path / "spool") == []


@pytest.mark.parametrize("spool", ["directory", "tmp"])
def test_a_server_that_is_away_for_seconds_misses_nothing(tmp_path, spool):
    port = free_port()
    receive = RECEIVE.replace(":0", f":{port}")
    first, second = (tmp_path / "first.pcap", tmp_path / "second.pcap")
    begin, rest, _ = split(SAMPLE, 0.5)
    agent = agent_file(tmp_path, port, STDIN, spool="tmp" if spool == "tmp" else None)
    with fed_agent(agent) as process:
        with receiver(pipeline(folder(tmp_path / "one"), receive, SINK.format(path=first))) as server:
            feed(process, begin)
            until(lambda: first.exists() and first.stat().st_size > 100000)
            code, _, log = server.stop()
            assert code == 0, log
        feed(process, rest)
        process.stdin.close()
        # The agent is at its end already, and waits.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        with receiver(pipeline(folder(tmp_path / "two"), receive, SINK.format(path=second))) as server:
            assert process.wait(timeout=60) == 0
            summary = process.stderr.read().decode()
            code, _, log = server.stop()
            assert code == 0, log
    assert data_of(first) + data_of(second) == data_of(SAMPLE)
    assert "works again after" in summary
    assert "dropped " not in summary.split("busy s")[1].split("\n", 1)[1]
    assert int(re.search(r"retried (\d+)", summary).group(1)) >= 3


@pytest.mark.usefixtures("zstd")
def test_an_agent_that_is_killed_loses_at_most_what_was_in_memory(tmp_path):
    port = free_port()
    begin, rest, cut = split(SAMPLE, 0.5)
    agent = agent_file(tmp_path, port, STDIN, age="1h")
    with fed_agent(agent) as process:
        feed(process, begin)
        # All but what may wait in memory: flush_bytes.
        until(lambda: spooled(tmp_path / "spool") >= len(begin) - 4096)
        process.send_signal(signal.SIGKILL)
        process.wait()
    names = [path.name for path in spool_files(tmp_path / "spool")]
    assert len([name for name in names if name.endswith(".part")]) == 1, names
    assert len([name for name in names if name.endswith(".pcap.zst")]) >= 2, names
    out = tmp_path / "out.pcap"
    receive = RECEIVE.replace(":0", f":{port}")
    with receiver(pipeline(folder(tmp_path / "server"), receive, SINK.format(path=out))) as server:
        with fed_agent(agent) as process:
            feed(process, begin[:24] + rest)
            process.stdin.close()
            assert process.wait(timeout=60) == 0
            summary = process.stderr.read().decode()
        code, _, log = server.stop()
        assert code == 0, log
    assert f"recovered {len(names)}," in summary
    got, sent = data_of(out), data_of(SAMPLE)
    missing = len(sent) - len(got)
    kept = cut - missing
    assert got == sent[:kept] + sent[cut:]
    assert sum(16 + len(data) for _, data in sent[kept:cut]) <= 4096
    assert spool_files(tmp_path / "spool") == []


@contextlib.contextmanager
def network():
    """A network of its own with nothing but a loopback interface; gives what runs a command in it."""
    name = f"millrace-upload-{os.getpid()}"
    made = shutil.which("ip") and subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if not made or made.returncode != 0:
        pytest.skip("needs the right to make a network namespace, and ip")
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        yield inside
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


SENDER = """
import socket, struct, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(3000):
    one.sendto(struct.pack("<I", number) + bytes(200), ("127.0.0.1", 9))
    time.sleep(0.001)
"""


def test_a_live_agent_that_is_killed_loses_at_most_the_last_moments(tmp_path):
    live = '[stage.capture]\nuse = "source-pcap"\ninterface = "lo"\nfilter = "udp dst port 9"\n'
    agent = agent_file(tmp_path, free_port(), live, age="1s")
    agent.write_text(agent.read_text().replace('"4KiB"', '"64KiB"') + 'flush_every = "300ms"\n')
    with network() as inside:
        process = subprocess.Popen([*inside, str(PROGRAM), "run", str(agent)], stderr=subprocess.PIPE, cwd=SOURCE)
        try:
            until((tmp_path / "spool/lock").exists)
            subprocess.run([*inside, sys.executable, "-c", SENDER], check=True)
            ended = time.time()
            process.kill()
        finally:
            process.kill()
            process.communicate()
    names = spool_files(tmp_path / "spool")
    assert len(names) >= 3
    out = tmp_path / "out.pcap"
    with receiver(pipeline(folder(tmp_path / "server"), RECEIVE, SINK.format(path=out))) as server:
        rest = agent_file(tmp_path, server.port, STDIN, name="rest")
        result = run("run", rest, stdin=subprocess.DEVNULL)
        assert result.returncode == 0, result.stderr
        assert spool_files(tmp_path / "spool") == []
        code, _, log = server.stop()
        assert code == 0, log
    rows = data_of(out)
    numbers = [struct.unpack_from("<I", data, 14 + 20 + 8)[0] for _, data in rows]
    # The first ones may have come before the capture began.
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # flush_every, the kernel's read_timeout, the time between two batches; the machine may be slow.
    assert ended - rows[-1][0] / 1e9 < 1.5


def test_an_agent_that_is_killed_while_it_uploads_repeats_chunks_under_their_names(tmp_path):
    """At any moment: also while the receiver has a chunk that the agent still has."""
    begin, rest, _ = split(SAMPLE, 0.5)
    out = tmp_path / "out.pcap"
    with receiver(pipeline(folder(tmp_path / "server"), RECEIVE, SINK.format(path=out))) as server:
        agent = agent_file(tmp_path, server.port, STDIN, age="0s")
        for part in (begin, begin[:24] + rest):
            for _ in range(3):
                with fed_agent(agent) as process:
                    feed(process, part)
                    until(lambda: out.exists() and out.stat().st_size > 0)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
        with fed_agent(agent) as process:
            process.stdin.write(begin[:24])
            process.stdin.close()
            assert process.wait(timeout=60) == 0, process.stderr.read()
        code, _, log = server.stop()
        assert code == 0, log
    # Every packet was fed three times, and came once for each time or not at all.
    got = data_of(out)
    assert set(got) <= set(data_of(SAMPLE))
    assert all(got.count(row) <= 3 * data_of(SAMPLE).count(row) for row in set(got))
    assert spool_files(tmp_path / "spool") == []


def test_a_signal_ends_an_agent_whose_server_is_away(tmp_path):
    agent = agent_file(tmp_path, free_port(), STDIN, finish="200ms")
    begin, rest, cut = split(SAMPLE, 0.5)
    with fed_agent(agent) as process:
        feed(process, begin)
        until(lambda: len(spool_files(tmp_path / "spool")) > 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        summary = process.stderr.read().decode()
    assert "stay in" in summary
    assert "do not balance" not in summary


def test_a_folder_that_is_in_use_is_shown_at_its_place(tmp_path):
    agent = agent_file(tmp_path, free_port(), STDIN)
    with fed_agent(agent):
        until(lambda: (tmp_path / "spool/lock").exists())
        result = run("run", agent)
    assert result.returncode == 2
    assert re.search(r"pipeline\.toml:\d+:\d+: .*in use by another process", result.stderr), result.stderr


def test_wrong_options_are_found_by_check(tmp_path):
    path = agent_file(tmp_path, 1)
    path.write_text(path.read_text().replace("http://127", "ftp://127") + 'key = "k"\n')
    result = run("check", path, "--no-env")
    assert result.returncode == 2
    assert "expected http://HOST:PORT" in result.stderr + result.stdout
    assert "'certificate' and 'key' come together" in result.stderr + result.stdout
