"""`millrace test`: what it says of tests that pass, fail, crash and hang, and of files that are wrong."""
import json
import os
import re
import signal
import subprocess
import xml.etree.ElementTree

import pytest
from millrace import BUILD, PROGRAM, SAMPLE, SOURCE, run, until

TEST_PLUGINS = BUILD / "tests/plugins"
PIPELINE = """
[stage.capture]
use  = "source-pcap"
file = "${CAPTURE}"

[stage.sessions]
use  = "split-memory"
from = "capture"

[stage.store]
use  = "sink-sqlite"
from = "sessions"
path = "${DATABASE:?set DATABASE}"
"""
ONE_PACKET = """
[[test.input]]
at      = "sessions"
packets = [{ udp = "10.0.0.1:1 > 10.0.0.2:53", payload = "x" }]
"""


def write(folder, *tests, pipeline=PIPELINE, head='pipeline = "pipeline.toml"\n'):
    (folder / "pipeline.toml").write_text(pipeline, encoding="utf-8")
    path = folder / "test.toml"
    path.write_text(head + "".join(tests), encoding="utf-8")
    return path


def case(name, stages, *more, keys=""):
    return f'[[test]]\nname = "{name}"\nstages = "{stages}"\n{keys}\n' + "".join(more)


def expect(*lines):
    return "[[test.expect]]\n" + "\n".join(lines) + "\n"


def test_a_failed_test_shows_the_nearest_item_field_by_field(tmp_path):
    path = write(tmp_path, case("passes", "sessions", ONE_PACKET, expect('after = "sessions"', "count = 1")),
                 case("fails", "sessions", ONE_PACKET, expect('after = "sessions"', "count = 2", 'items = [{ dst = "10.0.0.2", '
                                                              'dst_port = 80 }]')))
    result = run("test", path)
    assert result.returncode == 1
    assert re.search(r"^  PASS  passes \(\d+\.\d\d s\)$", result.stdout, re.M)
    assert re.search(r"^  FAIL  fails", result.stdout, re.M)
    assert f"after 'sessions' ({path}:" in result.stdout
    assert "- count = 2\n        + count = 1\n" in result.stdout
    assert '  dst = "10.0.0.2"\n          - dst_port = 80\n          + dst_port = 53\n' in result.stdout
    assert result.stdout.endswith("1 passed, 1 failed\n")


def test_everything_wrong_in_a_file_is_told_in_one_go_and_nothing_runs(tmp_path):
    path = write(tmp_path, """timout = "3s"
[[test]]
name = "one"
stages = "sessions"
[[test.input]]
at = "sessions"
packets = [{ tcp = "10.0.0.1 > 10.0.0.2:80" }, { udp = "10.0.0.1:1 > 10.0.0.2:2", paylaod = "x" }]
[[test.expect]]
cuont = 1
""")
    result = run("test", path)
    assert result.returncode == 2
    assert result.stdout == ""
    for place, words in {"2:1": "did you mean 'timeout'?", "8:20": "these are no two endpoints", "8:83": "did you mean 'payload'?",
                         "10:1": "did you mean 'count'?", "9:1": "does not say of what it is"}.items():
        assert f"{path}:{place}: error:" in result.stderr, result.stderr
        assert words in result.stderr
    assert "5 errors in" in result.stderr


def test_mistakes_against_the_pipeline_are_told_for_all_tests(tmp_path):
    path = write(tmp_path, case("one", "sesions"), case("two", "sessions", ONE_PACKET, expect('after = "sessions"', "items = [{ dst_prot = 1 }]")),
                 case("three", "sessions", ONE_PACKET, keys='set = { sessions.delay = "10" }'),
                 case("four", "..sessions"))
    result = run("test", path)
    assert result.returncode == 2
    for words in ("did you mean 'sessions'?", "did you mean 'dst_port'?", "a duration with its unit",
                  f"{tmp_path}/pipeline.toml:4:9: error: variable 'CAPTURE' is not set"):
        assert words in result.stderr
    assert "DATABASE" not in result.stderr, "only a stage that is not under test needs it"


def test_a_plugin_that_is_missing_is_an_error_unless_the_test_needs_it(tmp_path):
    other = PIPELINE.replace("split-memory", "split-other")
    path = write(tmp_path, case("one", "sessions", ONE_PACKET), pipeline=other)
    result = run("test", path)
    assert result.returncode == 2
    assert "there is no plugin 'split-other'" in result.stderr
    path = write(tmp_path, case("one", "sessions", ONE_PACKET, keys='needs = "split-other"'), pipeline=other)
    result = run("test", path)
    assert result.returncode == 0
    assert "  SKIP  one: there is no plugin 'split-other' here\n0 passed, 0 failed, 1 skipped\n" in result.stdout


def test_a_plugin_that_crashes_fails_its_own_test_only(tmp_path):
    pipeline = '[stage.capture]\nuse = "source-pcap"\nfile = "${CAPTURE}"\n[stage.x]\nuse = "good"\nfrom = "capture"\nfault = "${FAULT:-none}"\n'
    path = write(tmp_path, case("crashes", "..x", keys='vars = { FAULT = "crash" }'), case("throws", "..x", keys='vars = { FAULT = "call" }'),
                 case("must throw", "..x", keys='vars = { FAULT = "call" }\nfails = "write was told to throw"'), case("works", "..x"),
                 pipeline=pipeline)
    result = run("test", path, "--plugins", TEST_PLUGINS, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 1
    assert re.search(r"FAIL  crashes .*\n +the test's process ended with signal 6 \(Aborted\)", result.stdout)
    assert re.search(r"FAIL  throws .*\n +the pipeline failed\n +millrace: error: .*write was told to throw", result.stdout)
    assert result.stdout.endswith("2 passed, 2 failed\n")


@pytest.fixture
def silent(tmp_path):
    """A capture that has begun and goes on without a packet."""
    fifo = tmp_path / "silent.pcap"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    os.write(end, SAMPLE.read_bytes()[:24])
    yield fifo
    os.close(end)


def test_a_test_that_hangs_fails_and_names_the_stage_at_work(tmp_path, silent):
    path = write(tmp_path, case("hangs", "..sessions", keys='timeout = "500ms"'))
    result = run("test", path, "--var", f"CAPTURE={silent}")
    assert result.returncode == 1
    assert "not done within 0.5 s (timeout); still at work: capture" in result.stdout


def test_an_interrupt_ends_the_tests_and_leaves_nothing(tmp_path, silent):
    path = write(tmp_path, case("hangs", "..sessions"), case("never runs", "..sessions"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen([PROGRAM, "test", path, "--var", f"CAPTURE={silent}"], stdout=subprocess.PIPE, text=True, cwd=SOURCE,
                          env={**os.environ, "TMPDIR": str(temporary)}) as process:
        until(lambda: list(temporary.glob("*/1/stderr")), 60, "the first test")
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "interrupted" in text and "never runs" not in text
    assert not list(temporary.iterdir())


def test_files_of_a_test_can_be_looked_at_and_kept(tmp_path):
    swap = '[[test.stub]]\nstage = "store"\nuse = "sink-file"\npath = "-"\n'
    good = expect('file = "${TMP}/stdout"', "count = 1", "items = [{ dst_port = 53 }]")
    path = write(tmp_path, case("prints", "sessions..", ONE_PACKET, swap, good),
                 case("fails", "sessions..", ONE_PACKET, swap, expect('file = "${TMP}/stdout"', "count = 9")))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    assert run("test", path, env=environment).stdout.endswith("1 passed, 1 failed\n")
    assert not list(temporary.iterdir())
    result = run("test", path, "--keep", env=environment)
    folder = re.search(r"its files: (.*)", result.stdout).group(1)
    assert json.loads((temporary / folder / "stdout").read_text())["dst_port"] == 53


def test_list_filter_and_formats(tmp_path):
    path = write(tmp_path, case("one & <two>", "sessions", ONE_PACKET, expect('after = "sessions"', "count = 9")),
                 case("other", "sessions", ONE_PACKET))
    assert run("test", path, "--list").stdout == f"{path}: one & <two>\n{path}: other\n"
    assert run("test", path, "--filter", "other").stdout.endswith("1 passed, 0 failed\n")
    nothing = run("test", path, "--filter", "absent")
    assert nothing.returncode == 2 and "no test has this in its name" in nothing.stderr
    lines = [json.loads(line) for line in run("test", path, "--format", "json").stdout.splitlines()]
    assert [line.get("outcome") for line in lines] == ["failed", "passed", None]
    assert "- count = 9\n+ count = 1\n" in lines[0]["problems"][0]
    assert lines[2] == {"passed": 1, "failed": 1, "skipped": 0}
    suite = xml.etree.ElementTree.fromstring(run("test", path, "--format", "junit").stdout)
    assert suite.attrib["tests"] == "2" and suite.attrib["failures"] == "1"
    assert suite[0].attrib["name"] == "one & <two>" and "- count = 9" in suite[0].find("failure").text
    assert run("test", path, "--format", "tap").returncode == 2
    assert run("test").returncode == 2


def test_the_examples_of_the_docs_are_right(tmp_path):
    """Every TOML block of docs/testing.md is a test file that passes."""
    for folder in ("pipelines", "samples", "models"):
        (tmp_path / folder).symlink_to(SOURCE / folder)
    (tmp_path / "tests").mkdir()
    blocks = re.findall(r"```toml\n(.*?)```", (SOURCE / "docs/testing.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        path = tmp_path / "tests" / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        result = run("test", path, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
