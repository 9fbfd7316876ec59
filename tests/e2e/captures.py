"""Captures as the end-to-end tests make and cut them."""
from __future__ import annotations

import pathlib
import random
import struct

from millrace import CAPTURE, pipeline, run

RECORD = """
[stage.record]
use  = "sink-pcap"
from = "capture"
path = "${OUT}"
"""


def as_classic(capture: pathlib.Path, out: pathlib.Path) -> bytes:
    """Any capture as a classic one with nanoseconds, by our own tools; empty if it has no packets that can be decoded."""
    out.parent.mkdir(parents=True, exist_ok=True)
    result = run("run", pipeline(out.parent, CAPTURE, RECORD), "--var", f"CAPTURE={capture}", "--var", f"OUT={out}")
    if result.returncode == 1 and "can be decoded: link type" in result.stderr:
        return b""
    assert result.returncode == 0, result.stderr
    return out.read_bytes() if out.is_file() else b""


def records(capture: bytes) -> list[bytes]:
    """The records of a little-endian classic capture, with their headers."""
    found, at = [], 24
    while at < len(capture):
        size = 16 + struct.unpack_from("<I", capture, at + 8)[0]
        found.append(capture[at:at + size])
        at += size
    return found


def chunks(capture: bytes, dice: random.Random, most: int) -> list[bytes]:
    """Captures of 1 to `most` packets that together are the given one."""
    head, packets, out = capture[:24], records(capture), []
    while packets:
        size = dice.randint(1, most)
        out.append(head + b"".join(packets[:size]))
        packets = packets[size:]
    return out


def random_payload(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((20, 60, 200)))


def synthetic(packets: int, sessions: int, dice: random.Random, first_port: int = 1024, payload_of=random_payload) -> bytes:
    """A capture of UDP sessions that overlap, with payloads a model can look at. No two packets have one time."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    time = 1_700_000_000_000_000_000
    for i in range(packets):
        # Ten thousand sessions at a time would not end; a window of them moves on.
        session = (i * sessions // packets + dice.randrange(50)) % sessions
        payload = payload_of(dice)
        udp = struct.pack(">HHHH", first_port + session % 60000, 53, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                         bytes((10, 0, session // 60000, 1)), bytes((10, 1, 0, 1))) + udp
        frame = bytes(12) + b"\x08\x00" + ip
        time += dice.randrange(1, 200_000)
        out.append(struct.pack("<IIII", time // 10**9, time % 10**9, len(frame), len(frame)) + frame)
    return b"".join(out)
