"""What the scripts here have in common: running a program and asking what it cost."""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
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


def aim(what: str, value: float, *, at_most: float | None = None, at_least: float | None = None):
    """Prints whether a measured value is what was aimed at. bench/all gathers these lines."""
    reached = value <= at_most if at_most is not None else value >= at_least
    limit = f"at most {at_most:g}" if at_most is not None else f"at least {at_least:g}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"
    print(f"aim: {'reached' if reached else 'MISSED'}: {what}: {number} ({limit})", flush=True)


class Cost:
    def __init__(self, cpu: float, wall: float, megabytes: float, text: str):
        self.cpu, self.wall, self.megabytes, self.text = cpu, wall, megabytes, text


def measure(command, patience: float = 3600) -> Cost:
    """CPU seconds (user + system), seconds, highest memory, and what it printed. Ends the script if it fails, or takes
    longer than `patience` seconds."""
    command = [str(word) for word in command]
    begin = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        alarm = threading.Timer(patience, process.kill)
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        alarm.cancel()
        wall = time.monotonic() - begin
        # The end will do, and what this process once held counts as memory of the programs that it starts later.
        out.seek(max(0, out.seek(0, os.SEEK_END) - 100_000))
        text = out.read().decode(errors="replace")
    if status != 0:
        sys.exit(f"{command[0]} failed after {wall:.0f} s: {text}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, text)
