"""Queue stages, in one process, and cutting pipelines at them."""
import json

import pytest
from millrace import CAPTURE, SAMPLE, SESSIONS, PRINT, SHARED, pipeline, run

QUEUED = """
[stage.sessions]
use  = "split-memory.tickets"
from = "capture"
[stage.queue]
use  = "queue-memory"
from = "sessions"
[stage.claim]
use  = "split-memory.claim"
from = "queue"
workers = 2
[stage.print]
use  = "sink-file"
from = "claim"
path = "-"
"""


def rows(path, capture):
    """Without the reason: at the end of the input the queue's tickets say `timeout`."""
    result = run("run", path, "--var", f"CAPTURE={capture}")
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    for row in found:
        del row["reason"]
    return sorted(found, key=lambda row: row["session"])


@pytest.mark.parametrize("name", ["sample", "Tinba"])
def test_the_queued_flow_gives_the_sessions_of_the_plain_one(tmp_path, name):
    capture = SAMPLE if name == "sample" else SHARED / "datasets/ustc-tfc2016/Tinba.pcap"
    if not capture.is_file():
        pytest.skip(f"there is no {capture}")
    (tmp_path / "plain").mkdir()
    plain = rows(pipeline(tmp_path / "plain", CAPTURE, SESSIONS, PRINT), capture)
    assert plain
    assert rows(pipeline(tmp_path, CAPTURE, QUEUED), capture) == plain


def test_graph_shows_both_halves_of_a_queue(tmp_path):
    text = run("graph", pipeline(tmp_path, CAPTURE, QUEUED)).stdout
    assert "--Ticket--> queue.in" in text
    assert "queue.out        source" in text


@pytest.mark.parametrize("part, words", [
    ("..queue", "queue-memory holds its tickets in this process's memory"),
    ("..claim", "no queue in stage 'claim'; a pipeline is cut at queue stages, here queue"),
    ("queeu..", "did you mean 'queue'?"), ("queue", "expected ..QUEUE, QUEUE.. or QUEUE..QUEUE"), ("..", "expected")])
def test_wrong_cuts_say_what_is_wrong(tmp_path, part, words):
    result = run("run", pipeline(tmp_path, CAPTURE, QUEUED), "--stages", part, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2
    assert words in result.stderr


def test_a_queue_that_nobody_reads_or_with_workers_is_an_error(tmp_path):
    text = QUEUED.replace('from = "queue"\nworkers = 2', 'from = "sessions"').replace(
        'use  = "queue-memory"', 'use  = "queue-memory"\nworkers = 2')
    result = run("check", pipeline(tmp_path, CAPTURE, text), "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2
    assert "nothing reads from stage 'queue'" in result.stderr
    assert "a queue stage cannot have several workers" in result.stderr
