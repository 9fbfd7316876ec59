"""Captures that come by HTTP: the program as a receiver."""
import concurrent.futures
import contextlib
import http.client
import json
import random
import re
import signal
import struct
import subprocess
import time

import pytest
from millrace import CAPTURE, PROGRAM, SAMPLE, SESSIONS, PRINT, SOURCE, BUILD, pipeline, run

if not (BUILD / "lib/millrace/plugins/source-http.so").exists():
    pytest.skip("source-http is not built", allow_module_level=True)

RECEIVE = """
[stage.capture]
use    = "source-http"
listen = "127.0.0.1:0"
"""
QUEUED = """
[stage.sessions]
use  = "split-memory.tickets"
from = "capture"
[stage.queue]
use   = "queue-memory"
from  = "sessions"
delay = "{delay}"
[stage.claim]
use  = "split-memory.claim"
from = "queue"
[stage.print]
use  = "sink-file"
from = "claim"
path = "-"
"""
SINK = """
[stage.out]
use  = "sink-pcap"
from = "capture"
path = "{path}"
"""


class Receiver:
    def __init__(self, process, port):
        self.process = process
        self.port = port

    def post(self, body, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            names = {f"Millrace-{name.title()}": value for name, value in headers.items()}
            connection.request("POST", "/v1/captures", body, names)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self):
        """Returns exit code, standard output and the summary."""
        self.process.send_signal(signal.SIGTERM)
        out, log = self.process.communicate(timeout=60)
        return self.process.returncode, out, log


@contextlib.contextmanager
def receiver(path):
    process = subprocess.Popen([str(PROGRAM), "run", str(path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, cwd=SOURCE)
    try:
        log = ""
        while not (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", log)):
            line = process.stderr.readline()
            assert line, f"it ended: {log}"
            log += line
        yield Receiver(process, int(found.group(1)))
    finally:
        process.kill()
        process.wait()


def records_of(capture):
    data, at = capture.read_bytes(), 24
    while at < len(data):
        size = 16 + struct.unpack_from("<I", data, at + 8)[0]
        yield data[at:at + size]
        at += size


def chunks(capture, sizes):
    """A classic capture as several, each of so many records."""
    head, records = capture.read_bytes()[:24], list(records_of(capture))
    while records:
        size = next(sizes)
        yield head + b"".join(records[:size])
        records = records[size:]


def sessions(text):
    rows = [json.loads(line) for line in text.splitlines()]
    return sorted((row["protocol"], row["src"], row["src_port"], row["dst"], row["dst_port"], row["packets"])
                  for row in rows)


def test_chunks_posted_in_order_give_the_sessions_of_the_file(tmp_path):
    # Long enough for the queue to be emptied by the end of the input and not by the clock.
    path = pipeline(tmp_path, RECEIVE, QUEUED.format(delay="1min"))
    numbers = random.Random(3)
    with receiver(path) as server:
        total = 0
        for number, chunk in enumerate(chunks(SAMPLE, iter(lambda: numbers.randint(1, 60), None))):
            status, answer = server.post(chunk, agent="one", chunk=str(number))
            assert status == 200, answer
            total += answer["packets"]
            assert server.post(chunk, agent="one", chunk=str(number))[1]["duplicate"]
        code, out, log = server.stop()
    assert code == 0, log
    assert f"packets {total}," in log
    (tmp_path / "plain").mkdir()
    plain = run("run", pipeline(tmp_path / "plain", CAPTURE, SESSIONS, PRINT), "--var", f"CAPTURE={SAMPLE}")
    assert sessions(out) == sessions(plain.stdout)


def test_four_agents_at_once(tmp_path):
    path = pipeline(tmp_path, RECEIVE, SINK.format(path=tmp_path / "out.pcap"))
    parts = list(chunks(SAMPLE, iter(lambda: 25, None)))
    with receiver(path) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: server.post(parts[n % len(parts)], agent=f"agent{n % 4}", chunk=str(n)),
                                range(4 * len(parts))))
        assert {status for status, _ in answers} == {200}
        code, _, log = server.stop()
    assert code == 0, log
    assert f"packets {sum(answer['packets'] for _, answer in answers)}," in log


def test_a_stop_while_uploads_come_loses_none_that_was_answered(tmp_path):
    out = tmp_path / "out.pcap"
    path = pipeline(tmp_path, RECEIVE, SINK.format(path=out))
    part = next(chunks(SAMPLE, iter(lambda: 100, None)))
    confirmed = 0

    def agent(server, name):
        done = 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            while server.post(part, agent=name, chunk=str(done))[0] == 200:
                done += 1
        return done

    with receiver(path) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        agents = [pool.submit(agent, server, f"agent{n}") for n in range(4)]
        time.sleep(0.5)
        code, _, log = server.stop()
        confirmed = sum(future.result() for future in agents)
    assert code == 0, log
    assert confirmed > 0
    kept = sum(1 for _ in records_of(out))
    assert kept >= confirmed * 100
    assert f"uploads-ok {confirmed}" in log


def test_a_port_in_use_is_shown_at_its_place(tmp_path):
    path = pipeline(tmp_path, RECEIVE, SINK.format(path=tmp_path / "out.pcap"))
    with receiver(path) as server:
        path.write_text(path.read_text().replace(":0", f":{server.port}"))
        result = run("run", path)
    assert result.returncode == 2
    assert "pipeline.toml:4:" in result.stderr and "Address already in use" in result.stderr


def test_an_address_that_others_reach_needs_a_credential(tmp_path):
    path = pipeline(tmp_path, RECEIVE.replace("127.0.0.1", "0.0.0.0"), SINK.format(path=tmp_path / "out.pcap"))
    for command in ("check", "run"):
        result = run(command, path)
        assert result.returncode == 2
        text = result.stdout + result.stderr
        assert "pipeline.toml:4:" in text and "set 'tokens'" in text and "insecure = true" in text, text
    path.write_text(path.read_text().replace('0.0.0.0:0"', '0.0.0.0:0"\ninsecure = true'))
    assert run("check", path).returncode == 0
