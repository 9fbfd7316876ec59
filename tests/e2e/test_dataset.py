"""From captures to a deployed model: pipelines/dataset.toml, tools/train, pipelines/standalone.toml."""
import csv
import os
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import urllib.request

import pytest
from captures import records, synthetic
from millrace import BUILD, CAPTURE, HAS_MODEL, PRINT, Running, SESSIONS, SHARED, SOURCE, pipeline, run, until

np = pytest.importorskip("numpy", reason="python3-numpy is not installed")
pytest.importorskip("torch", reason="python3-torch is not installed")
HAS_DATASET = (BUILD / "lib/millrace/plugins/sink-dataset.so").exists()
pytestmark = pytest.mark.skipif(not HAS_DATASET, reason="sink-dataset was not built: libzip-dev or libcsv-dev is missing")
needs_model = pytest.mark.skipif(not HAS_MODEL, reason="model-torch was not built: libtorch-dev is not installed")

PORTS = {"chat": 1000, "mail": 2000, "web": 3000}
PAYLOADS = {
    "chat": lambda dice: b"\x01\x00\x00\x01" + dice.randbytes(dice.randint(20, 60)) + b"\x00\x1c",
    "mail": lambda dice: b"EHLO host%d.example\r\nMAIL FROM:<a%d@b.example>\r\n" % (dice.randint(0, 999), dice.randint(0, 999)),
    "web": lambda dice: b"GET /%x HTTP/1.1\r\nHost: www%d.example\r\n\r\n" % (dice.getrandbits(64), dice.randint(0, 999)),
}


def capture_of(label: str, seed: int, first_port: int = 0) -> bytes:
    return synthetic(240, 60, random.Random(seed), first_port or PORTS[label], PAYLOADS[label])


def sessions_in(*captures: bytes) -> int:
    """They differ in the port of the source, which stands behind record, Ethernet and IP header."""
    return len({record[50:52] for capture in captures for record in records(capture)})


ALL = sum(sessions_in(capture_of(label, seed)) for seed, label in enumerate(PORTS))


@pytest.fixture
def captures(tmp_path):
    folder = tmp_path / "captures"
    for seed, label in enumerate(PORTS):
        (folder / label / "2020").mkdir(parents=True)
        (folder / label / "2020/a.pcap").write_bytes(capture_of(label, seed))
    return folder


def make(folder: pathlib.Path, out: pathlib.Path, *more: str) -> str:
    result = run("run", "pipelines/dataset.toml", "--var", f"CAPTURES={folder}", "--var", f"OUT={out}", *more)
    assert result.returncode == 0, result.stderr
    return result.stderr


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def arrays(folder: pathlib.Path) -> dict:
    with np.load(folder / "dataset.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def shell(folder: pathlib.Path, command: str) -> str:
    """Runs the command as a person would in a clone, with the program on the path; what it said."""
    env = {**os.environ, "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


@pytest.mark.parametrize("output", ("idx", "npz"))
@pytest.mark.parametrize("fault", ("stray", "damaged", "nothing", "elsewhere"))
def test_a_run_that_fails_leaves_the_data_set_as_it_was(captures, tmp_path, fault, output):
    out = tmp_path / "data"
    make(captures, out, "--set", f"dataset.format={output}")
    before = files(out)
    file, more = "pipelines/dataset.toml", []
    if fault == "stray":
        (captures / "web/a_labels.csv").write_text("session,label\n", encoding="utf-8")
    elif fault == "damaged":
        damaged = bytearray(capture_of("web", 2))
        damaged[2000:3000] = b"\xff" * 1000
        (captures / "web/2020/z.pcap").write_bytes(damaged)
    elif fault == "nothing":
        more = ["--set", "capture.filter=port 9"]
    else:  # another branch of the pipeline
        full = '[stage.full]\nuse = "sink-pcap"\nfrom = "capture"\npath = "/dev/full"\nretry_for = "0s"\n'
        file = pipeline(tmp_path, (SOURCE / file).read_text(encoding="utf-8"), full)
    result = run("run", file, "--var", f"CAPTURES={captures}", "--var", f"OUT={out}",
                 "--set", f"dataset.format={output}", *more)
    assert result.returncode == 1, result.stderr
    assert "stays as it was" in result.stderr
    assert files(out) == before


@pytest.mark.parametrize("sent", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_run_leaves_the_data_set_as_it_was(captures, tmp_path, sent):
    out = tmp_path / "data"
    make(captures, out)
    before = files(out)
    large = capture_of("web", 2)
    large += large[24:] * (32_000_000 // len(large))
    (captures / "web/2020/b.pcap").write_bytes(large)
    for number in range(100):  # a gigabyte and more, of which hardly any is ever read
        (captures / f"web/2020/c{number}.pcap").symlink_to("b.pcap")
    running = Running(tmp_path / "log", "pipelines/dataset.toml", "--var", f"CAPTURES={captures}", "--var", f"OUT={out}",
                      "--admin", "127.0.0.1:0")
    url = running.wait_for(r"health and metrics on (http://\S+)").group(1)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def metrics() -> str:
        with opener.open(url.rstrip("/") + "/metrics", timeout=10) as answer:
            return answer.read().decode()
    until(lambda: re.search(r'out\w*{[^}]*stage="capture"[^}]*} [1-9]', metrics()), 60, "packets")
    running.process.send_signal(sent)
    assert running.process.wait(60) == 130
    assert "'capture' was stopped after" in running.text()
    assert "stays as it was" in running.text()
    assert files(out) == before


@needs_model
def test_three_commands_make_a_model_that_answers(captures, tmp_path):
    for name in ("pipelines", "tools"):
        (tmp_path / name).symlink_to(SOURCE / name)
    for seed, label in enumerate(PORTS):
        (tmp_path / "other" / label).mkdir(parents=True)
        (tmp_path / "other" / label / "b.pcap").write_bytes(capture_of(label, 100 + seed))
    header = (SOURCE / "pipelines/dataset.toml").read_text(encoding="utf-8").split("[pipeline]")[0]
    commands = re.findall(r"^#   ((?:millrace|tools/train) .*)$", header, re.M)
    assert [command.split()[0] for command in commands] == ["millrace", "tools/train", "millrace"]
    shell(tmp_path, commands[0])
    shell(tmp_path, commands[1] + " --epochs 20 --batch 16 --width 16 --last 16")
    answers = {}
    for label in PORTS:
        (tmp_path / "my.pcap").write_bytes((tmp_path / "other" / label / "b.pcap").read_bytes())
        (tmp_path / "sessions.db").unlink(missing_ok=True)
        shell(tmp_path, commands[2])
        rows = sqlite3.connect(tmp_path / "sessions.db").execute("SELECT label, count(*) FROM sessions GROUP BY label")
        answers[label] = dict(rows.fetchall())
        assert sum(answers[label].values()) == sessions_in((tmp_path / "my.pcap").read_bytes())
    # Below the card's min_confidence a session is "unknown"; what has a name has the right one.
    for label, counts in answers.items():
        assert set(counts) <= {label, "unknown"}, answers
        assert counts.get(label, 0) > 0.8 * sum(counts.values()), answers
    said = shell(tmp_path, "tools/evaluate models/mine.pt --captures other --millrace $(command -v millrace)")
    assert f"{sum(sum(counts.values()) for counts in answers.values())} sessions of {len(PORTS)} classes" in said
    assert float(re.search(r"accuracy ([0-9.]+)", said).group(1)) > 0.95
    assert "class" in shell(tmp_path, "tools/evaluate models/mine.pt --idx data")


def test_same_bytes_again_whatever_the_batches(captures, tmp_path):
    first = make(captures, tmp_path / "1")
    in_dev = sum(round(0.2 * sessions_in(capture_of(label, seed))) for seed, label in enumerate(PORTS))
    assert f"{ALL - in_dev} sessions in train, {in_dev} in dev, {len(PORTS)} classes" in first
    expected = files(tmp_path / "1")
    assert set(expected) == {f"{part}-{what}" for part in ("train", "dev") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")} | {"labels.txt"}
    for number, batch in enumerate((1, 7, 65536)):
        out = tmp_path / f"batch{number}"
        make(captures, out, "--set", f"capture.batch={batch}", "--set", f"capture.batch_bytes={4096 << number}")
        assert files(out) == expected
    make(captures, tmp_path / "seed", "--set", "dataset.seed=2")
    assert files(tmp_path / "seed") != expected
    # The order in which the captures are read does not matter either.
    (tmp_path / "flat").mkdir()
    for label in PORTS:
        (tmp_path / "flat" / label).symlink_to(captures / label / "2020")
    reverse = [str(tmp_path / "flat" / label) for label in reversed(PORTS)]
    make(captures, tmp_path / "reverse", "--set", f"capture.file={reverse}")
    assert files(tmp_path / "reverse") == expected


def test_npz_holds_what_idx_holds_and_trains_the_same(captures, tmp_path):
    make(captures, tmp_path / "idx")
    for name in ("npz", "again"):
        make(captures, tmp_path / name, "--set", "dataset.format=npz")
    assert files(tmp_path / "npz") == files(tmp_path / "again")
    found = arrays(tmp_path / "npz")
    assert list(found) == ["train_x", "train_y", "dev_x", "dev_y", "labels"]
    assert list(found["labels"]) == sorted(PORTS)
    for part in ("train", "dev"):
        x, y = found[f"{part}_x"], found[f"{part}_y"]
        assert (x.dtype, x.ndim, x.shape[1], y.dtype) == (np.uint8, 2, 784, np.int64)
        idx = files(tmp_path / "idx")
        assert idx[f"{part}-images-idx3-ubyte"][16:] == x.tobytes()
        assert idx[f"{part}-labels-idx1-ubyte"][8:] == y.astype(np.uint8).tobytes()
    small = "--epochs 1 --width 8 --last 8"
    for name, source in (("a", "--idx idx"), ("b", "--npz npz/dataset.npz")):
        shell(tmp_path, f"{SOURCE}/tools/train {source} --out {name}/m.pt {small}")
    assert (tmp_path / "a/m.toml").read_text() == (tmp_path / "b/m.toml").read_text()
    said = shell(tmp_path, f"{SOURCE}/tools/evaluate b/m.pt --npz npz/dataset.npz --part train")
    assert f"{len(found['train_y'])} sessions" in said


def test_sessions_that_are_twice_or_in_two_classes(captures, tmp_path):
    copy = captures / "web/copy.pcap"
    copy.write_bytes(capture_of("web", 2, 30000))
    web = sessions_in(copy.read_bytes())
    assert f"duplicate {web}" in make(captures, tmp_path / "same")
    make(captures, tmp_path / "all", "--set", "dataset.format=npz")
    x = np.concatenate([arrays(tmp_path / "all")[f"{part}_x"] for part in ("train", "dev")])
    assert len(np.unique(x, axis=0)) == len(x) == ALL
    copy.rename(captures / "mail/copy.pcap")
    said = make(captures, tmp_path / "two")
    assert f"ambiguous {2 * web}" in said
    assert "the class 'web' is left out" in said
    assert (tmp_path / "two/labels.txt").read_text() == "chat\nmail\n"


def test_labels_from_the_table_that_sink_file_writes(captures, tmp_path):
    table = tmp_path / "labels.csv"
    flat = pipeline(tmp_path, CAPTURE, SESSIONS, PRINT, 'format = "csv"\n')
    result = run("run", flat, "--var", f"CAPTURE={captures}", "--set", f"print.path={table}")
    assert result.returncode == 0, result.stderr
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {port // 1000: label for label, port in PORTS.items()}
    for row in rows:
        row["label"] = names[int(row["src_port"]) // 1000]
    rows[0]["label"] = ""  # nobody knew
    from_table = ("--set", "capture.agent_from=option", "--set", "dataset.label_from=table",
                  "--set", f"dataset.labels={table}")
    make(captures, tmp_path / "folders", "--set", "dataset.dev_share=0")
    sets = []
    for columns in (list(rows[0]), [name for name in rows[0] if name != "session"]):
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        out = tmp_path / str(len(sets))
        assert "no-label 1" in make(captures, out, *from_table, "--set", "dataset.dev_share=0")
        sets.append(files(out))
    assert sets[0] == sets[1]
    assert sets[0]["labels.txt"] == files(tmp_path / "folders")["labels.txt"]
    assert len(sets[0]["train-labels-idx1-ubyte"]) == len(files(tmp_path / "folders")["train-labels-idx1-ubyte"]) - 1
    table.write_text("session,label\nabc,web\n")
    result = run("run", "pipelines/dataset.toml", "--var", f"CAPTURES={captures}", "--var", f"OUT={tmp_path}/bad", *from_table)
    assert result.returncode == 2
    assert "labels.csv:2: 'abc' is no session id" in result.stderr


RECORD = """
[stage.capture]
use        = "source-pcap"
file       = "${CAPTURES}"
agent_from = "${AGENT_FROM:-option}"

[stage.record]
use  = "sink-pcap"
from = "capture"
path = "${OUT}"
"""


def test_captures_of_single_sessions_make_the_same_data(captures, tmp_path):
    path = pipeline(tmp_path, RECORD, 'file_per = "session"\nmax_open = 5\n')
    result = run("run", path, "--var", f"CAPTURES={captures}", "--var", "AGENT_FROM=folder", "--var", f"OUT={tmp_path}/sessions")
    assert result.returncode == 0, result.stderr
    assert sorted(entry.name for entry in (tmp_path / "sessions").iterdir()) == sorted(PORTS)
    found = list((tmp_path / "sessions").glob("*/udp_*.pcap"))
    assert len(found) == ALL
    assert sum(len(records(path.read_bytes())) for path in found) == 240 * len(PORTS)
    make(captures, tmp_path / "whole")
    make(tmp_path / "sessions", tmp_path / "single")
    assert files(tmp_path / "whole") == files(tmp_path / "single")


def test_a_capture_is_sorted_by_the_labels_of_a_table(captures, tmp_path):
    table = tmp_path / "answers.csv"
    flat = pipeline(tmp_path, CAPTURE, SESSIONS, PRINT, 'format = "csv"\n')
    assert run("run", flat, "--var", f"CAPTURE={captures}", "--set", f"print.path={table}").returncode == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": "low" if int(row["src_port"]) < 2000 else "high"} for row in rows)
    path = pipeline(tmp_path, RECORD, f'file_per = "label"\nlabel_from = "table"\nlabels = "{table}"\n')
    result = run("run", path, "--var", f"CAPTURES={captures}", "--var", f"OUT={tmp_path}/sorted")
    assert result.returncode == 0, result.stderr
    ports = {path.stem: {int.from_bytes(record[50:52], "big") for record in records(path.read_bytes())}
             for path in (tmp_path / "sorted").iterdir()}
    assert set(ports) == {"low", "high"}
    assert max(ports["low"]) < 2000 <= min(ports["high"])
    assert sum(len(records(path.read_bytes())) for path in (tmp_path / "sorted").iterdir()) == 240 * len(PORTS)


@pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason=f"no captures in {SHARED}/captures")
def test_real_captures_in_class_folders(tmp_path):
    for label, pattern in (("dns", "dns*"), ("quic", "quic*"), ("stun", "stun*"), ("tls", "tls*")):
        (tmp_path / "c" / label).mkdir(parents=True)
        for capture in (SHARED / "captures").glob(pattern):
            (tmp_path / "c" / label / capture.name).symlink_to(capture)
    make(tmp_path / "c", tmp_path / "1", "--set", "dataset.format=npz", "--set", "dataset.index=true")
    make(tmp_path / "c", tmp_path / "2", "--set", "dataset.format=npz", "--set", "dataset.index=true", "--set", "capture.batch=3")
    assert files(tmp_path / "1") == files(tmp_path / "2")
    found = arrays(tmp_path / "1")
    assert list(found["labels"]) == ["dns", "quic", "stun", "tls"]
    for part in ("train", "dev"):
        assert set(found[f"{part}_y"]) == {0, 1, 2, 3}
    x = np.concatenate([found["train_x"], found["dev_x"]])
    assert len(np.unique(x, axis=0)) == len(x)
    with (tmp_path / "1/sessions.csv").open(newline="") as file:
        assert [(row["part"], int(row["image"])) for row in csv.DictReader(file)] == [
            (part, i) for part in ("train", "dev") for i in range(len(found[f"{part}_y"]))]
