"""What the scripts here have in common: running a program and asking what it cost."""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/release"
MILLRACE = BUILD / "bin/millrace"

# A capture without a packet, to see what a start costs.
EMPTY = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)

SPLIT = """
[stage.capture]
use  = "source-pcap"
file = "${CAPTURE}"
[stage.sessions]
use  = "split-memory"
from = "capture"
max_bytes = "64MiB"
[stage.count]
use  = "sink-count"
from = "sessions"
"""


class Cost:
    def __init__(self, cpu: float, wall: float, megabytes: float, text: str):
        self.cpu, self.wall, self.megabytes, self.text = cpu, wall, megabytes, text


def measure(command) -> Cost:
    """CPU seconds (user + system), seconds, highest memory, and what it printed. Ends the script if it fails."""
    command = [str(word) for word in command]
    begin = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        out.seek(0)
        text = out.read().decode(errors="replace")
    if status != 0:
        sys.exit(f"{command[0]} failed: {text}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, text)
