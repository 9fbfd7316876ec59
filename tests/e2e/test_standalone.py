"""The main job on real captures."""
import gzip
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess

import pytest
from millrace import CAPTURE, HAS_MODEL, PRINT, PROGRAM, SAMPLE, SESSIONS, SHARED, SOURCE, pipeline, run

needs_model = pytest.mark.skipif(not HAS_MODEL, reason="model-torch was not built: libtorch-dev is not installed")
needs_captures = pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason=f"no captures in {SHARED}/captures")


def sessions_of(path, capture, *more, stdin=None):
    result = run("run", path, "--var", f"CAPTURE={capture}", *more, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def plain(tmp_path):
    return pipeline(tmp_path, CAPTURE, SESSIONS, PRINT)


def packets_in(capture: bytes) -> list[bytes]:
    """The records of a little-endian classic capture, with their headers."""
    records, at = [], 24
    while at < len(capture):
        size = 16 + struct.unpack_from("<I", capture, at + 8)[0]
        records.append(capture[at:at + size])
        at += size
    return records


def test_the_sample_is_found_from_any_folder(plain, tmp_path):
    """As the model is: pipelines/standalone.toml names both."""
    for command in ("run", "check"):
        result = run(command, plain, *(["--probe"] if command == "check" else []), "--var", "CAPTURE=samples/sample.pcap",
                     cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        missing = run(command, plain, *(["--probe"] if command == "check" else []), "--var", "CAPTURE=samples/none.pcap",
                      cwd=tmp_path)
        assert missing.returncode == 2
        assert "there is no file 'samples/none.pcap'" in missing.stderr


def test_every_packet_is_accounted_for(plain):
    rows = [json.loads(line) for line in sessions_of(plain, SAMPLE).splitlines()]
    records = packets_in(SAMPLE.read_bytes())
    result = run("run", plain, "--log-format", "json", "--var", f"CAPTURE={SAMPLE}")
    stages = {s["stage"]: s for line in result.stderr.splitlines() for s in json.loads(line).get("stages", [])}
    split = stages["sessions"]
    assert stages["capture"]["out"] == split["in"] == len(records)
    assert split["handled"] == sum(row["packets"] for row in rows)
    assert split["handled"] + sum(split["dropped"].values()) == split["in"]
    assert list(rows[0]) == ("session agent protocol src src_port dst dst_port epoch first_seen last_seen packets bytes "
                             "payload_bytes reason label confidence model").split()
    assert {row["label"] for row in rows} == {""}


def test_compressed_split_and_piped_captures_give_the_same(plain, tmp_path):
    whole = sessions_of(plain, SAMPLE)
    data = SAMPLE.read_bytes()
    packed = tmp_path / "sample.gz"
    packed.write_bytes(gzip.compress(data))
    assert sessions_of(plain, packed) == whole
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", SAMPLE, "-o", tmp_path / "sample.zst"], check=True)
        assert sessions_of(plain, tmp_path / "sample.zst") == whole
    with open(SAMPLE, "rb") as stdin:
        assert sessions_of(plain, "-", stdin=stdin) == whole
    folder = tmp_path / "parts"
    folder.mkdir()
    records = packets_in(data)
    for i in range(0, len(records), 100):
        (folder / f"{i:06}.pcap").write_bytes(data[:24] + b"".join(records[i:i + 100]))
    assert sessions_of(plain, folder) == whole
    for size in (1, 7, 65536):
        assert sessions_of(plain, SAMPLE, "--set", f"capture.batch={size}") == whole
    assert sessions_of(plain, SAMPLE, "--set", "capture.batch_bytes=4096") == whole


def test_a_pipe_that_is_fed_in_small_pieces(plain):
    process = subprocess.Popen([PROGRAM, "run", plain, "--var", "CAPTURE=-"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=SOURCE)
    data = SAMPLE.read_bytes()
    for at in range(0, len(data), 997):
        process.stdin.write(data[at:at + 997])
        process.stdin.flush()
    out, _ = process.communicate(timeout=60)
    assert out.decode() == sessions_of(plain, SAMPLE)


def test_cut_off_file_keeps_whole_packets_and_counts_the_loss(plain, tmp_path):
    data = SAMPLE.read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(data[:-3])
    result = run("run", plain, "--var", f"CAPTURE={cut}")
    assert result.returncode == 0
    records = packets_in(data)
    offset = len(data) - len(records[-1])
    assert f"cut off in the middle of the record at byte {offset}" in result.stderr
    assert "truncated-records 1" in result.stderr
    assert re.search(rf"^capture +0 +{len(records) - 1} ", result.stderr, re.M)


def test_damaged_file_is_an_error_that_names_the_place(plain, tmp_path):
    data = bytearray(SAMPLE.read_bytes())
    third = 24 + sum(map(len, packets_in(SAMPLE.read_bytes())[:2]))
    struct.pack_into("<I", data, third + 8, 0x7FFFFFFF)
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(data)
    result = run("run", plain, "--var", f"CAPTURE={bad}")
    assert result.returncode == 1
    assert f"damaged at byte {third}: record 3" in result.stderr
    assert re.search(r"^capture +0 +2 ", result.stderr, re.M)


def test_filter_snaplen_and_count(plain):
    result = run("run", plain, "--var", f"CAPTURE={SAMPLE}", "--set", "capture.filter=udp")
    assert {json.loads(line)["protocol"] for line in result.stdout.splitlines()} == {"udp"}
    result = run("run", plain, "--var", f"CAPTURE={SAMPLE}", "--set", "capture.count=5")
    assert re.search(r"^capture +0 +5 ", result.stderr, re.M)
    rows = [json.loads(line) for line in sessions_of(plain, SAMPLE, "--set", "capture.snaplen=60").splitlines()]
    assert sum(row["payload_bytes"] for row in rows) < 10 * sum(row["packets"] for row in rows)


def test_empty_capture_is_a_run_without_sessions(plain, tmp_path):
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(SAMPLE.read_bytes()[:24])
    assert sessions_of(plain, empty) == ""
    other = tmp_path / "text.pcap"
    other.write_text("this is no capture")
    result = run("run", plain, "--var", f"CAPTURE={other}")
    assert result.returncode == 2
    assert "text.pcap" in result.stderr


@needs_model
def test_standalone_stores_every_session_once(tmp_path):
    database = tmp_path / "s.db"
    arguments = ("run", "pipelines/standalone.toml", "--var", f"CAPTURE={SAMPLE}", "--var", f"DATABASE={database}")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    connection = sqlite3.connect(database)
    query = "SELECT * FROM sessions ORDER BY session"
    rows = connection.execute(query).fetchall()
    assert len(rows) > 20
    second = run(*arguments)
    assert f"already-stored {len(rows)}" in second.stderr
    assert connection.execute(query).fetchall() == rows
    labels = {label for (label,) in connection.execute("SELECT DISTINCT label FROM sessions")}
    card = (SOURCE / "models/ustc-tfc2016-fast.toml").read_text(encoding="utf-8")
    assert all(label == "unknown" or f'"{label}"' in card for label in labels)


@needs_model
@pytest.mark.parametrize("name", ["ustc-tfc2016", "ustc-tfc2016-fast"])
@pytest.mark.parametrize("capture", ["sample"] + sorted(
    os.listdir(SHARED / "captures") if (SHARED / "captures").is_dir() else [])[::40])
def test_one_and_four_workers_give_the_same_bytes(tmp_path, capture, name):
    path = SAMPLE if capture == "sample" else SHARED / "captures" / capture
    if path.suffix not in (".pcap", ".pcapng", ".cap"):
        pytest.skip(f"{capture} is no capture")
    model = f'[stage.model]\nuse = "model-torch"\nfrom = "sessions"\nmodel = "models/{name}.pt"\n'
    file = pipeline(tmp_path, CAPTURE, SESSIONS, model, PRINT.replace('"sessions"', '"model"'))
    one = sessions_of(file, path, "--set", "model.probabilities=true")
    for more in (("model.workers=4",), ("model.workers=4", "model.batch=7", "capture.batch=3"), ("model.batch=1",)):
        settings = [word for setting in more for word in ("--set", setting)]
        assert sessions_of(file, path, "--set", "model.probabilities=true", *settings) == one


@needs_model
def test_damaged_model_is_told_before_the_first_packet(tmp_path):
    model = tmp_path / "m.pt"
    data = (SOURCE / "models/ustc-tfc2016.pt").read_bytes()
    model.write_bytes(data[:len(data) // 2])
    shutil.copy(SOURCE / "models/ustc-tfc2016.toml", tmp_path / "m.toml")
    arguments = ("run", "pipelines/standalone.toml", "--var", f"CAPTURE={SAMPLE}", "--var", f"MODEL={model}",
                 "--var", f"DATABASE={tmp_path / 's.db'}")
    result = run(*arguments)
    assert result.returncode == 2
    assert "m.pt' cannot be used: it is damaged" in result.stderr
    assert "pipelines/standalone.toml:" in result.stderr
    model.write_bytes(data)
    card = (tmp_path / "m.toml").read_text().replace('"BitTorrent", ', "")
    (tmp_path / "m.toml").write_text(card)
    result = run(*arguments)
    assert result.returncode == 2
    assert "gives 20 classes, but its card names 19 labels" in result.stderr


def test_sigterm_in_a_long_run_drains_and_balances(tmp_path):
    """A pipe that never ends is as long as a file can be."""
    database = tmp_path / "s.db"
    path = pipeline(tmp_path, CAPTURE, SESSIONS, f"""
[stage.store]
use  = "sink-sqlite"
from = "sessions"
path = "{database}"
""")
    process = subprocess.Popen([PROGRAM, "run", path, "--var", "CAPTURE=-", "--drain", "20s", "--log-format", "json"],
                               stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=SOURCE, text=False)
    data = SAMPLE.read_bytes()
    process.stdin.write(data)
    process.stdin.flush()
    # Everything that was written is in the pipeline when a further write had to wait for it.
    records = b"".join(packets_in(data))
    for _ in range(20):
        process.stdin.write(records)
        process.stdin.flush()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in err.decode().splitlines()]
    assert not [line for line in lines if line.get("level") == "error"]
    stages = {s["stage"]: s for line in lines for s in line.get("stages", [])}
    assert stages["capture"]["out"] == stages["sessions"]["in"] > 0
    assert stages["sessions"]["out"] == stages["store"]["in"] == stages["store"]["handled"]
    rows = sqlite3.connect(database).execute("SELECT count(*), sum(packets) FROM sessions").fetchone()
    counters = stages["store"]["counters"]
    assert rows[0] == counters["stored"] > 0
    assert rows[0] + counters["already-stored"] == stages["store"]["in"]


@needs_captures
def test_all_captures_run_clean_and_agree_with_the_reference(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS + 'delay = "36500d"\nidle = "36500d"\n', PRINT)
    expected = [line.split("\t") for line in (SHARED / "captures/expected.tsv").read_text().splitlines()[1:]]
    assert len(expected) == 276
    undecodable = {"BGP_Cisco_hdlc_slarp.pcap": "PPP (9)", "BGP_redist.pcap": "C_HDLC (104)", "dlt_ppp.pcap": "PPP (9)"}
    for name, _, _, packets, *_, in expected:
        result = run("run", path, "--log-format", "json", "--var", f"CAPTURE={SHARED / 'captures' / name}")
        assert result.returncode == (1 if name in undecodable else 0), (name, result.stderr)
        assert f"can be decoded: link type {undecodable.get(name, '')}" in result.stderr or name not in undecodable, name
        stages = {s["stage"]: s for line in result.stderr.splitlines() for s in json.loads(line).get("stages", [])}
        assert stages["capture"]["out"] == int(packets), name
    for name, *fields in expected:
        if fields[7] == "-":
            continue
        out = sessions_of(path, SHARED / "captures" / name)
        keys = {tuple(sorted(((r["src"], r["src_port"]), (r["dst"], r["dst_port"])))) + (r["protocol"],)
                for r in map(json.loads, out.splitlines())}
        assert len(keys) == int(fields[7]), name
