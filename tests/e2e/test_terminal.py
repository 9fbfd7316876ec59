"""What a person sees at a terminal."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time

import pytest
from millrace import PRINT, PROGRAM, SAMPLE, SESSIONS, SOURCE, pipeline

COLUMNS = 60
CAPTURE = '[stage.capture]\nuse = "source-pcap"\nfile = "-"\n'
COUNT = '[stage.{name}]\nuse = "sink-count"\nfrom = "sessions"\n'


@pytest.fixture
def terminal():
    """Both ends of one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    yield ours, theirs
    os.close(ours)


def read_until(ours: int, pattern: bytes | None) -> bytes:
    """What was printed up to the match, or without a pattern up to the end."""
    text = b""
    while pattern is None or not re.search(pattern, text):
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody has the other end any more
            break
        text += part
    assert pattern is None or re.search(pattern, text), text
    return text


def start(path, terminal_end: int, stdout: int):
    process = subprocess.Popen([PROGRAM, "run", path], cwd=SOURCE, stdin=subprocess.PIPE, stdout=stdout,
                               stderr=terminal_end)
    process.stdin.write(SAMPLE.read_bytes())
    process.stdin.flush()
    return process


def test_progress_fits_into_a_line(terminal, tmp_path):
    ours, theirs = terminal
    names = [f"a-stage-with-a-long-name-{i}" for i in range(3)]
    path = pipeline(tmp_path, CAPTURE, SESSIONS, *(COUNT.format(name=name) for name in names))
    with start(path, theirs, theirs) as process:
        os.close(theirs)
        text = read_until(ours, rb"\d s  capture [1-9]\d*  sessions [^\r]*\r")
        process.stdin.close()
        text += read_until(ours, None)
        assert process.wait(30) == 0
    lines = re.findall(rb"\x1b\[K([^\r\n]*)\r(?!\n)", text)
    assert any(len(line) == COLUMNS - 1 for line in lines), text
    assert all(len(line) < COLUMNS for line in lines), text


def test_no_progress_where_a_stage_prints(terminal, tmp_path):
    ours, theirs = terminal
    with start(pipeline(tmp_path, CAPTURE, SESSIONS, PRINT, 'format = "table"\n'), theirs, theirs) as process:
        os.close(theirs)
        time.sleep(0.6)  # longer than from one line of progress to the next
        process.stdin.close()
        text = read_until(ours, None)
        assert process.wait(30) == 0
    assert re.search(rb"(?m)^first seen", text), text
    assert b"\x1b[K" not in text
