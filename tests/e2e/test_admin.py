"""Health and metrics of a running pipeline."""
import contextlib
import json
import re
import resource
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
from millrace import CAPTURE, PROGRAM, SAMPLE, SESSIONS, SOURCE, Running, pipeline, run, until

COUNT = '[stage.count]\nuse = "sink-count"\nfrom = "sessions"\n'


@pytest.fixture
def running(tmp_path):
    """A run that waits for standard input; gives the process and the address."""
    path = pipeline(tmp_path, '[pipeline]\nname = "p"\n', CAPTURE, SESSIONS, COUNT)
    with subprocess.Popen([PROGRAM, "run", path, "--admin", "127.0.0.1:0", "--var", "CAPTURE=-"], cwd=SOURCE,
                          stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        line = process.stderr.readline().decode()
        address = re.search(r"health and metrics on (\S+)", line)
        assert address, line
        yield process, address.group(1)
        process.kill()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_and_metrics_of_a_run(running):
    process, url = running
    until(lambda: get(f"{url}/health") == (200, '{"pipeline":"p","status":"running","ready":true}\n'), 30, "it runs")
    process.stdin.write(SAMPLE.read_bytes())
    process.stdin.flush()
    status, text = get(f"{url}/metrics")
    assert status == 200
    families = re.findall(r"^# TYPE (\S+) (counter|gauge)$", text, re.M)
    assert ("millrace_items_in_total", "counter") in families
    for line in text.splitlines():
        assert re.fullmatch(r'#.*|millrace_ready 1|[a-z_]+\{stage="[^"]+"(,[a-z]+="[^"]+")?\} [0-9.e+-]+', line), line
    assert get(f"{url}/nothing")[0] == 404
    request = urllib.request.Request(f"{url}/health", method="POST", data=b"x" * 100)
    with pytest.raises(urllib.error.HTTPError, match="405|400"):
        urllib.request.urlopen(request, timeout=10)
    process.stdin.close()
    assert process.wait(30) == 0


def test_idle_connections_do_not_keep_others_out(running):
    """With 40 descriptors in all; the oldest connections give way."""
    process, url = running
    until(lambda: get(f"{url}/health")[0] == 200, 30, "it runs")
    address = urllib.parse.urlparse(url)
    limit = 40
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        for _ in range(3 * limit):
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
        assert get(f"{url}/health")[0] == 200


def test_draining_is_not_healthy(running):
    process, url = running
    until(lambda: get(f"{url}/health")[0] == 200, 30, "it runs")
    process.send_signal(signal.SIGTERM)
    assert b"pipeline 'p'" in process.stderr.readline()
    assert b"SIGTERM" in process.stderr.readline()
    # The source waits in a read of standard input, so the drain lasts until that ends.
    try:
        status, text = get(f"{url}/health")
        assert status == 503
        assert json.loads(text)["status"] == "draining"
    except OSError:
        pass  # it had ended already
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize("address, words", [
    ("127.0.0.1", "--admin 127.0.0.1: expected HOST:PORT"),
    ("127.0.0.1:99999", "--admin 127.0.0.1:99999: expected HOST:PORT with a port from 0 to 65535"),
    ("127.0.0.1:x", "--admin 127.0.0.1:x: expected HOST:PORT with a port"),
    ("192.0.2.1:80", "cannot listen on '192.0.2.1:80'")])
def test_an_address_that_cannot_be_had_is_told(tmp_path, address, words):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, COUNT)
    result = run("run", path, "--admin", address, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2
    assert words in result.stderr
