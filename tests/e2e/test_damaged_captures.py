"""Real captures with flipped bytes and cut ends: a result or a clear error, never a crash.

MILLRACE_DAMAGES says how many damaged copies are made of each capture (default 2; many under sanitizers)."""
import os
import random
import re

import pytest
from millrace import CAPTURE, SAMPLE, SESSIONS, SHARED, pipeline, run

COUNT = '[stage.count]\nuse = "sink-count"\nfrom = "sessions"\n'
DAMAGES = int(os.environ.get("MILLRACE_DAMAGES", "2"))
LARGEST = 2 << 20


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, near the beginning more often, and perhaps the end cut off."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 3, 30, 300))):
        out[min(int(dice.expovariate(1) * len(out) / dice.choice((2, 1000))), len(out) - 1)] = dice.choice(
            (0, 0xFF, 0x7F, 0x80, dice.randrange(256)))
    if dice.random() < 0.5:
        del out[dice.randrange(len(out)):]
    return bytes(out)


def check(path, name):
    result = run("run", path, "--var", f"CAPTURE={name}")
    assert result.returncode in (0, 1, 2), (name, result.returncode, result.stderr[-2000:])
    assert "Sanitizer" not in result.stderr and "runtime error" not in result.stderr, result.stderr
    assert "books do not balance" not in result.stderr
    if result.returncode != 0:
        assert re.search(re.escape(str(name)), result.stderr), result.stderr


def test_damaged_copies_of_the_sample(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, COUNT)
    dice = random.Random(1)
    for i in range(30 * DAMAGES):
        copy = tmp_path / f"damaged-{i}.pcap"
        copy.write_bytes(damaged(SAMPLE.read_bytes(), dice))
        check(path, copy)


def test_damaged_copies_of_all_captures(tmp_path):
    captures = sorted(p for p in (SHARED / "captures").rglob("*") if re.search(r"\.(p?cap|pcapng)$", p.name))
    if not captures:
        pytest.skip(f"no captures in {SHARED}/captures")
    path = pipeline(tmp_path, CAPTURE, SESSIONS, COUNT)
    copy = tmp_path / "damaged.pcap"
    for capture in captures:
        with capture.open("rb") as file:
            data = file.read(LARGEST)
        for i in range(DAMAGES):
            copy.write_bytes(damaged(data, random.Random(f"{capture.name} {i}")))
            check(path, copy)


def test_captures_of_which_nothing_can_come(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, COUNT)
    folder = tmp_path / "captures"
    folder.mkdir()
    wlan = bytearray(SAMPLE.read_bytes())
    wlan[20:24] = (105).to_bytes(4, "little")
    (folder / "wlan.pcap").write_bytes(wlan)

    def said(command, code, *more):
        result = run(*command, path, "--var", f"CAPTURE={folder}", *more)
        assert result.returncode == code, result.stderr
        return result.stderr + result.stdout

    assert "link type IEEE802_11 (105)" in said(["run"], 1)
    assert "link type IEEE802_11 (105)" in said(["check", "--probe"], 2)
    (folder / "wlan.pcap").write_bytes(SAMPLE.read_bytes())
    (folder / "notes.txt").write_text("from the laboratory\n", encoding="utf-8")
    assert said(["run"], 0).count("notes.txt") == 1
    assert "notes.txt" in said(["run"], 1, "--set", "capture.other_files=stop")
    assert "matches the filter 'port 9'" in said(["run"], 0, "--set", "capture.filter=port 9")
    (folder / "wlan.pcap").unlink()
    assert "holds no captures" in said(["run"], 2)
