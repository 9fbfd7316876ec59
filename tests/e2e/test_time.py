"""What the times of packets do, right ones and wrong ones: to the sessions of files, and of uploads."""
import collections
import csv
import io
import pathlib
import struct
import urllib.request

import pytest
from millrace import BUILD, CAPTURE, SHARED, Running, pipeline, run, until
from server_flow import Services

START = 1_600_000_000
FUTURE = 4_294_967_000  # in the year 2106

SPLIT = """
[stage.sessions]
use  = "split-memory"
from = "capture"
[stage.out]
use    = "sink-file"
from   = "sessions"
path   = "-"
format = "csv"
"""
SERVER = """
[stage.receive]
use    = "source-http"
listen = "127.0.0.1:0"
[stage.sessions]
use    = "{use}"
from   = "receive"
server = "{server}"
[stage.queue]
use   = "queue-memory"
from  = "sessions"
delay = "100ms"
[stage.claim]
use    = "{claim}"
from   = "queue"
server = "{server}"
[stage.out]
use    = "sink-file"
from   = "claim"
path   = "{out}"
format = "csv"
"""


def frame(port: int, payload: bytes, back: bool = False) -> bytes:
    ports = (53, port) if back else (port, 53)
    udp = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    ends = [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))]
    return bytes(12) + b"\x08\x00" + struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                                                *(reversed(ends) if back else ends)) + udp


ARP = bytes(12) + b"\x08\x06" + bytes(28)


def capture(*packets: tuple[float, bytes]) -> bytes:
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for time, data in packets:
        micro = round(time * 10**6)
        out.append(struct.pack("<IIII", micro // 10**6, micro % 10**6, len(data), len(data)) + data)
    return b"".join(out)


def exchange(time: float) -> list[tuple[float, bytes]]:
    return [(time, frame(1000, b"?")), (time + 1, frame(1000, b"!", back=True))]


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def split(folder: pathlib.Path, what, *more: str) -> list[dict]:
    result = run("run", pipeline(folder, CAPTURE, SPLIT), "--var", f"CAPTURE={what}", *more)
    assert result.returncode == 0, result.stderr
    return sorted(rows_of(result.stdout), key=lambda row: row["session"])


BURSTS = [packet for i in range(5) for packet in exchange(START + 100 * i)]
FULL = [(START + 600 * burst + i * 0.01, frame(1000, b"x")) for burst in range(3) for i in range(24)]
ODD = {"udp": frame(9, b"odd"), "arp": ARP}


def others(rows: list[dict]) -> list[dict]:
    return [row for row in rows if "9" not in (row["src_port"], row["dst_port"])]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("time", [FUTURE, 0, START - 3600, START + 90_000])
@pytest.mark.parametrize("stream", ["bursts", "full"])
def test_a_packet_with_a_wrong_time_changes_no_other_session(tmp_path, stream, time, kind):
    packets = BURSTS if stream == "bursts" else FULL
    file = tmp_path / "x.pcap"
    file.write_bytes(capture(*packets))
    right = split(tmp_path, file)
    assert [int(row["packets"]) for row in right] == ([2] * 5 if stream == "bursts" else [24] * 3)
    assert sorted(int(row["epoch"]) for row in right) == (list(range(5)) if stream == "bursts" else [0, 0, 0])
    for place in (0, 1, len(packets) // 2, len(packets)):
        file.write_bytes(capture(*packets[:place], (time, ODD[kind]), *packets[place:]))
        rows = split(tmp_path, file)
        assert others(rows) == right
        assert len(rows) == len(right) + (kind == "udp")


@pytest.mark.parametrize("jump", [-3600, 86_400])
def test_a_clock_that_is_set_loses_nothing(tmp_path, jump):
    packets = [(START + 600 * burst + (jump if burst in (1, 2) else 0) + i * 0.01, frame(1000, b"x"))
               for burst in range(4) for i in range(24)]
    file = tmp_path / "x.pcap"
    file.write_bytes(capture(*packets))
    rows = split(tmp_path, file)
    assert [(row["packets"], row["reason"]) for row in rows] == [("24", "full")] * 4


def test_files_of_a_rotated_capture_are_one(tmp_path):
    folder = tmp_path / "rotated"
    folder.mkdir()
    packets = [packet for i in range(12) for packet in exchange(START + 100 * i)]
    for i in range(12):
        (folder / f"r.pcap{i or ''}").write_bytes(capture(*packets[2 * i:2 * i + 2]))
    (tmp_path / "merged.pcap").write_bytes(capture(*packets))
    right = split(tmp_path, tmp_path / "merged.pcap")
    assert len(right) == 12
    for order in ("time", "name"):
        assert split(tmp_path, folder, "--set", f"capture.order={order}") == right
    # Sessions that begin in one file and end in the next; and names in another order than times.
    for i in range(24):
        (folder / f"r.pcap{i or ''}").write_bytes(capture(packets[23 - i]))
    assert split(tmp_path, folder) == right


def test_files_that_do_not_continue_one_another_do_not_disturb_each_other(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    alone = []
    for i, begin in enumerate((0, 3, 50, 20, 86_400, 7)):
        file = folder / f"{i}.pcap"
        file.write_bytes(capture(*exchange(START + begin), *exchange(START + begin + 90)))
        alone += split(tmp_path, file)
    assert split(tmp_path, folder) == sorted(alone, key=lambda row: row["session"])


def test_a_folder_of_real_captures_gives_the_rows_of_its_files(tmp_path):
    if not (SHARED / "captures/expected.tsv").is_file():
        pytest.skip(f"there are no captures in {SHARED}")
    names = ("http.cap", "dns.cap", "tls.pcap", "srvloc.pcap", "443-curl.pcap", "443-chrome.pcap", "whatsapp_voice_and_message.pcap")
    found = [SHARED / "captures" / name for name in names if (SHARED / "captures" / name).is_file()]
    assert len(found) > 2
    folder = tmp_path / "folder"
    folder.mkdir()
    alone = collections.Counter()
    for file in found:
        (folder / file.name).symlink_to(file)
        alone.update(row["session"] + row["reason"] for row in split(tmp_path, folder / file.name, "--set", "capture.agent_from=file"))
    together = split(tmp_path, folder, "--set", "capture.agent_from=file")
    assert collections.Counter(row["session"] + row["reason"] for row in together) == alone


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_an_upload_with_a_wrong_time_does_no_harm_to_those_after_it(tmp_path, store):
    needed = ["source-http", *(["split-redis"] if store == "redis" else [])]
    if missing := [name for name in needed if not (BUILD / f"lib/millrace/plugins/{name}.so").exists()]:
        pytest.skip(f"not built: {', '.join(missing)}")
    services = Services(tmp_path / "services", "redis") if store == "redis" else None
    use = ("split-redis", "split-redis.claim") if services else ("split-memory.tickets", "split-memory.claim")
    server = services.address["REDIS"] if services else "memory"
    bodies = [capture((FUTURE, frame(9, b"odd")), *exchange(START)), capture(*exchange(START + 600)), capture(*exchange(START + 1200))]
    rows: list[dict] = []
    # In Redis what is known outlives the process.
    for turn, part in enumerate([bodies[:1], bodies[1:]] if services else [bodies]):
        out = tmp_path / f"out{turn}.csv"
        place = tmp_path / f"turn{turn}"
        place.mkdir()
        running = Running(tmp_path / f"log{turn}", pipeline(place, SERVER.format(use=use[0], claim=use[1], server=server, out=out)))
        try:
            url = running.wait_for(r"listening on (http://[\d.:]+)").group(1)
            for i, body in enumerate(part):
                request = urllib.request.Request(f"{url}/v1/captures", data=body, headers={"Millrace-Agent": "one",
                                                                                            "Millrace-Chunk": f"{turn}-{i}"})
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200
            expected = 2 if services else 4
            until(lambda file=out, n=expected: file.is_file() and len(rows_of(file.read_text())) >= n, 30, f"{expected} rows")
        finally:
            running.drain()
        rows += rows_of(out.read_text())
    assert sorted(int(row["packets"]) for row in rows) == [1, 2, 2, 2]
    if services:
        services.stop()
