"""What the program says and how it ends, whatever it is given."""
import json
import re
import signal
import subprocess

import pytest
from millrace import BUILD, CAPTURE, PRINT, PROGRAM, SAMPLE, SESSIONS, SOURCE, health, pipeline, run, until

TEST_PLUGINS = BUILD / "tests/plugins"


def test_check_finds_every_error_of_a_file_in_one_go(tmp_path):
    path = pipeline(tmp_path, """\
[pipeline]
abuot = "x"
[stage.capture]
use = "source-pcpa"
[stage.more]
use = "source-pcap"
file = "x.pcap"
filter = "tcp prot 80"
snaplen = "big"
[stage.sessions]
use = "split-memory"
from = "captrue"
packet = 24
delay = "10"
keep = "l8"
[stage.store]
use = "sink-sqlite"
from = "more"
path = "${NOT_SET_ANYWHERE}"
when = 3x
[stage.print]
use = "sink-file"
from = "sessions"
format = "tabel"
""")
    result = run("check", path)
    assert result.returncode == 2
    for line, words in {2: "did you mean 'about'?", 4: "did you mean 'source-pcap'?", 8: "no BPF filter",
                        9: "expected an integer", 12: "did you mean 'capture'?", 13: "did you mean 'packets'?",
                        14: "a duration with its unit", 15: "one of \"l7\", \"l4\", \"l2\"",
                        18: "gives Packet, but 'store' takes Verdict or Session",
                        19: "'NOT_SET_ANYWHERE' is not set", 20: "decimal integer", 24: "did you mean 'table'?"}.items():
        assert f"{path}:{line}:" in result.stderr, line
        assert words in result.stderr
    assert "12 errors in" in result.stderr


def test_a_plugin_that_is_mistyped_hides_no_mistake_of_its_options(tmp_path):
    path = pipeline(tmp_path, '[stage.capture]\nuse = "source-pcpa"\nfiel = "x"\nsnaplen = "big"\nworkers = 2\n'
                    '[stage.s]\nuse = "split-memory.calim"\nfrom = "capture"\nleese = "1s"\n')
    result = run("check", path)
    assert result.returncode == 2
    for words in ("did you mean 'source-pcap'?", "did you mean 'file'?", "expected an integer", "did you mean 'claim'?"):
        assert words in result.stderr, result.stderr


@pytest.mark.parametrize("command", ["run", "check", "graph"])
@pytest.mark.parametrize("name, meant", [("CAPTUR", "CAPTURE"), ("DATABSE", "DATABASE"), ("x", None)])
def test_a_variable_that_the_file_never_names_is_an_error(tmp_path, command, name, meant):
    result = run(command, SOURCE / "pipelines/standalone.toml", "--var", f"{name}=s3cret", "--var",
                 f"DATABASE={tmp_path / 'db'}")
    assert result.returncode == 2
    assert f"error: there is no ${{{name}}} in " in result.stderr and "CAPTURE, DATABASE, MODEL" in result.stderr
    assert "s3cret" not in result.stderr and not (tmp_path / "db").exists()
    if meant:
        assert f"did you mean '{meant}'?" in result.stderr


def test_a_variable_may_be_named_anywhere(tmp_path):
    """In the default of another, in a section of another plugin, in a part that is cut away, in --set, in [config]."""
    path = pipeline(tmp_path, f'[stage.capture]\nuse = "source-pcap"\nfile = "${{A:-${{B:-{SAMPLE}}}}}"\n'
                    '[stage.tickets]\nuse = "queue-memory"\nfrom = "sessions"\n'
                    '[stage.sessions]\nuse = "split-memory.tickets"\nfrom = "capture"\ndelay = "${D:-10s}"\n'
                    '[stage.sessions.split-redis]\nserver = "${C:-x}"\n'
                    '[stage.claim]\nuse = "split-memory.claim"\nfrom = "tickets"\n'
                    '[stage.out]\nuse = "sink-count"\nfrom = "claim"\n')
    for name in ("A", "B", "C", "D"):
        value = "10s" if name == "D" else SAMPLE
        assert run("check", path, "--var", f"{name}={value}").returncode == 0, name
    assert run("check", path, "--var", "E=5", "--set", "sessions.delay=${E}s").returncode == 0
    assert run("check", path, "--var", "E=5").returncode == 2
    (tmp_path / "other").mkdir()
    other = pipeline(tmp_path / "other", f'[stage.capture]\nuse = "source-pcap"\nfile = "${{E:-{SAMPLE}}}"\n', SESSIONS,
                     '[stage.n]\nuse = "sink-count"\nfrom = "sessions"\n')
    assert run("check", path, other, "--var", f"E={SAMPLE}").returncode == 0
    result = run("check", path, other, "--var", "F=5")
    assert result.returncode == 2 and "in any of these files" in result.stderr
    default = run("run", path, "--var", f"B={SAMPLE}", "--no-summary")
    assert default.returncode == 0, default.stderr


@pytest.mark.parametrize("command", ["run", "check", "graph"])
def test_a_capture_in_place_of_a_pipeline_file_is_told(tmp_path, command):
    result = run(command, SAMPLE)
    assert result.returncode == 2 and "this is a capture, not a pipeline file" in result.stderr
    assert f"did you mean 'millrace run pipelines/standalone.toml --var CAPTURE={SAMPLE}'?" in result.stderr
    for content, words in ((b"\x0a\x0d\x0d\x0a", "a capture"), (b"\x1f\x8b\x08\x00", "compressed"),
                           (b"\x28\xb5\x2f\xfd\x00", "compressed"), (b"PK\x03\x04", "ZIP"), (b"a\0", "no text")):
        (tmp_path / "x").write_bytes(content)
        result = run(command, tmp_path / "x")
        assert result.returncode == 2 and f"this is {words}" in result.stderr.replace("this is a compressed", "this is compressed")\
            .replace("this is a ZIP", "this is ZIP"), result.stderr


def test_many_mistakes_are_counted_and_the_first_are_shown(tmp_path):
    keys = "".join(f"k{i} = 1\n" for i in range(20000))
    result = run("check", pipeline(tmp_path, f'[stage.a]\nuse = "source-pcap"\nfile = "x"\n{keys}'))
    assert result.returncode == 2 and "20001 errors in" in result.stderr and "... and 19901 more" in result.stderr
    assert len(result.stderr) < 50000


@pytest.mark.parametrize("key", ["a." * 50000 + "a = 1", "[" + "a." * 50000 + "a]", "a = " + "[" * 50000])
def test_a_file_that_is_nested_too_deep_is_an_error_with_its_place(tmp_path, key):
    result = run("check", pipeline(tmp_path, "[pipeline]\nname = 'x'\n" + key + "\n"))
    assert result.returncode == 2 and "nested deeper than 64 levels" in result.stderr
    assert ".toml:3:" in result.stderr


@pytest.mark.parametrize("use, option, address, words", [
    ("split-redis", "server", "nonsense", "no address of a Redis server"),
    ("split-redis", "server", "redis://h1:6379,h2:6379", "several hosts"),
    ("split-redis.claim", "server", "nonsense", "no address of a Redis server"),
    ("queue-rabbit", "server", "nonsense", "expected amqp://"),
    ("queue-rabbit", "server", "amqp://u:p@h1:5672,h2:5672", "several hosts"),
    ("sink-mysql", "server", "nonsense", "expected mysql://"),
    ("sink-mysql", "server", "mysql://u@h1:3306,h2:3306/d", "several hosts"),
    ("sink-postgres", "server", "nonsense", "expected postgresql://"),
    ("sink-kafka", "brokers", "http:/x y", "brokers"),
    ("source-canal", "brokers", "h:99999", "1 to 65535"),
    ("source-canal", "brokers", "", "no host"),
    ("source-binlog", "server", "nonsense", "expected mysql://"),
    ("sink-http", "url", "nonsense", "expected http://HOST:PORT"),
    ("model-http", "url", "nonsense", "expected http://HOST:PORT"),
    ("source-http", "listen", "nonsense", "HOST:PORT"),
    ("config-zk.apply", "server", "nonsense", "server"),
])
def test_check_reads_every_address(tmp_path, use, option, address, words):
    plugin = use.split(".")[0]
    if not (BUILD / f"lib/millrace/plugins/{plugin}.so").exists():
        pytest.skip(f"SKIPPED: {plugin} is not built")
    result = run("check", pipeline(tmp_path, f'[stage.x]\nuse = "{use}"\n{option} = "${{ADDRESS}}"\n'), "--var",
                 f"ADDRESS={address}")
    own = [part for part in result.stderr.split("error: ") if words in part]
    assert result.returncode == 2 and own, result.stderr


def test_a_section_of_a_plugin_that_is_not_installed_is_told(tmp_path):
    """No error, because a file may be for several machines; but it may be mistyped, too."""
    path = pipeline(tmp_path, CAPTURE, SESSIONS, '[stage.print]\nuse = "sink-file"\nfrom = "sessions"\npath = "-"\n'
                    '[stage.print.sink-fiel]\nformat = "csv"\n[stage.print.sink-sqlite]\npath = "x"\n'
                    '[stage.print.of-another-machine]\nx = 1\n')
    line = path.read_text(encoding="utf-8").splitlines().index("[stage.print.sink-fiel]") + 1
    mistyped = f"{path}:{line}:14: warning: there is no plugin 'sink-fiel' here, so this section is not looked at\n"
    foreign = f"{path}:{line + 4}:14: warning: there is no plugin 'of-another-machine' here"
    checked = run("check", path, "--no-env")
    assert checked.returncode == 0, checked.stderr
    assert mistyped in checked.stderr and "did you mean 'sink-file'?" in checked.stderr
    assert foreign in checked.stderr
    assert checked.stderr.count("warning") == 2
    assert checked.stderr.endswith(": ok, 3 stages\n")
    ran = run("run", path, "--var", f"CAPTURE={SAMPLE}")
    assert ran.returncode == 0, ran.stderr
    assert mistyped in ran.stderr and "did you mean 'sink-file'?" in ran.stderr
    assert "of-another-machine" not in ran.stderr
    logged = run("run", path, "--var", f"CAPTURE={SAMPLE}", "--log-format", "json")
    warnings = [entry for entry in map(json.loads, logged.stderr.splitlines()) if entry.get("level") == "warning"]
    assert len(warnings) == 1 and "did you mean 'sink-file'?" in warnings[0]["message"]


@pytest.mark.parametrize("arguments", [
    ("--set", "store.server=hunter2"), ("--set", 'store.server=["hunter2"]'), ("--set", "store.serevr=hunter2"),
    ("--set", "stroe.server=hunter2"), ("--set", "hunter2"), ("--set", "store.server=mysql://u:hunter2@h:x/d"),
    ("--var", "hunter2"), ("--var", "=hunter2"), ("--var", "SERVER=mysql://u:hunter2@h:x/d"),
    ("--sets=store.server=hunter2",), ("--set", "store.server=hunter2", "--stages", "a..b")])
@pytest.mark.parametrize("command", [("check",), ("run",), ("run", "--log-format", "json"), ("graph",)])
def test_a_secret_of_the_command_line_is_not_printed(tmp_path, command, arguments):
    path = pipeline(tmp_path, CAPTURE, SESSIONS,
                    '[stage.store]\nuse = "sink-mysql"\nfrom = "sessions"\nserver = "${SERVER:-hunter2}"\n')
    if command == ("graph",) and "--stages" in arguments:
        return
    result = run(*command, path, "--var", f"CAPTURE={SAMPLE}", *arguments)
    assert result.returncode == 2, result.stderr
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("line", [
    'server = "hunter2"', "server = ['hunter2', 1]", 'server = "hunter2', "serevr = 'hunter2'", "serevr = hunter2",
    'server = """\nhunter2"""', 'server = "mysql://u:hunter2@${NOT_SET_ANYWHERE}/d"', "server = { a = 'hunter2', b = 3x }",
    "[stage.store.sink-postgres]\nserver = 'postgresql://u:hunter2@${NOT_SET_ANYWHERE}/d'"])
def test_a_secret_in_the_file_is_not_printed(tmp_path, line):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, f'[stage.store]\nuse = "sink-mysql"\nfrom = "sessions"\n{line}\n')
    for command in ("check", "run"):
        result = run(command, path, "--var", f"CAPTURE={SAMPLE}")
        assert result.returncode == 2, result.stderr
        assert "error" in result.stderr
        assert "hunter2" not in result.stdout + result.stderr


def test_a_supervisor_that_does_not_start_prints_no_secret_either(tmp_path):
    path = pipeline(tmp_path, '[config]\nuse = "config-file"\npath = "none.toml"\n', CAPTURE, SESSIONS,
                    '[stage.store]\nuse = "sink-mysql"\nfrom = "sessions"\nserver = "hunter2\n')
    result = run("run", path, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2, result.stderr
    assert "server =***" in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


def test_shipped_pipelines_are_right():
    files = sorted((SOURCE / "pipelines").glob("*.toml"))
    assert files
    result = run("check", "--no-env", *files)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name, words", [
    ("wrong-abi", "plugin ABI 99.0"), ("wrong-fingerprint", "compiler is 'g++ 3' in the plugin"),
    ("wrong-magic", "not the head of a Millrace plugin"), ("no-symbol", "no symbol 'millrace_plugin'"),
    ("no-object", "file too short")])
def test_plugins_that_do_not_fit_stop_the_start(tmp_path, name, words):
    path = pipeline(tmp_path, CAPTURE, f'[stage.x]\nuse = "{name}"\nfrom = "capture"\n')
    result = run("run", path, "--plugins", TEST_PLUGINS, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2
    assert words in result.stderr
    assert f"{path}:" in result.stderr


TOLD = {"source": '[stage.x]\nuse = "good.source"\n{fault}[stage.end]\nuse = "good"\nfrom = "x"\n',
        "through": CAPTURE + '[stage.x]\nuse = "good.through"\nfrom = "capture"\n{fault}'
                             '[stage.end]\nuse = "good"\nfrom = "x"\n',
        "good": CAPTURE + '[stage.x]\nuse = "good"\nfrom = "capture"\n{fault}'}
# What is found before anything runs is an error of the file.
ENDS = {"constructor": 2, "check": 2, "probe": 2, "open": 1, "call": 1, "flush": 1}


@pytest.mark.parametrize("odd", [False, True], ids=["exception", "odd"])
@pytest.mark.parametrize("fault", ENDS)
@pytest.mark.parametrize("stage", TOLD)
def test_a_stage_that_throws_is_named(tmp_path, stage, fault, odd):
    if (stage, fault) == ("source", "flush"):
        return  # a source is not flushed
    path = pipeline(tmp_path, TOLD[stage].replace("${CAPTURE}", str(SAMPLE)).replace(
        "{fault}", f'fault = "{fault}"\nodd = {str(odd).lower()}\n'))
    result = run(*(["check", "--probe"] if fault == "probe" else ["run"]), path, "--plugins", TEST_PLUGINS)
    assert result.returncode == ENDS[fault], result.stderr
    assert ("it threw something that is no std::exception" if odd else "was told to throw") in result.stderr
    use = stage if stage == "good" else f"good.{stage}"
    if ENDS[fault] == 2:
        line = path.read_text(encoding="utf-8").splitlines().index("[stage.x]") + 1
        assert re.search(rf"^{path}:{line}:\d+: error: stage 'x' \({use}\)", result.stderr, re.M), result.stderr
    elif fault == "open":
        assert "millrace: error: x: cannot start: " in result.stderr
    else:
        assert f"millrace: error: failed: stage 'x' ({use}): " in result.stderr


def test_a_check_that_throws_does_not_hide_the_other_errors(tmp_path):
    path = pipeline(tmp_path, CAPTURE, '[stage.x]\nuse = "good"\nfrom = "capture"\nfault = "check"\n'
                    '[stage.y]\nuse = "sink-file"\nfrom = "capture"\nformat = "tabel"\n')
    result = run("check", path, "--no-env", "--plugins", TEST_PLUGINS)
    assert result.returncode == 2
    assert "the check was told to throw" in result.stderr
    assert "did you mean 'table'?" in result.stderr


def test_threads_that_plugins_start_take_no_signals(tmp_path):
    """SIGTERM drains, although the plugin's thread could take it."""
    path = pipeline(tmp_path, CAPTURE, '[stage.x]\nuse = "good"\nfrom = "capture"\nthread = true\n')
    with subprocess.Popen([PROGRAM, "run", path, "--plugins", TEST_PLUGINS, "--var", "CAPTURE=-", "--admin", "127.0.0.1:0"],
                          stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=SOURCE) as process:
        url = re.search(r"health and metrics on (\S+)", process.stderr.readline().decode()).group(1)
        until(lambda: health(url)[0] == 200, 30, "it runs")
        process.send_signal(signal.SIGTERM)
        assert b"capture (source-pcap)" in process.stderr.readline()
        assert b"SIGTERM: stopping" in process.stderr.readline()
        process.stdin.close()
        assert process.wait(30) == 0


QUEUE_THAT_FAILS = """
[stage.capture]
use  = "source-pcap"
file = "-"
[stage.sessions]
use  = "split-memory.tickets"
from = "capture"
[stage.queue]
use   = "queue-memory"
from  = "sessions"
delay = "0s"
[stage.claim]
use  = "split-memory.claim"
from = "queue"
[stage.out]
use       = "sink-file"
from      = "claim"
path      = "/dev/full"
retry_for = "0s"
"""


def test_an_error_behind_a_queue_ends_the_run_and_names_the_stage(tmp_path):
    """The queue gives out again what fails, and would do so until --drain."""
    path = pipeline(tmp_path, QUEUE_THAT_FAILS)
    result = run("run", path, "--drain", "1h", stdin=SAMPLE.open("rb"), timeout=120)
    assert result.returncode == 1, result.stderr
    assert "millrace: error: failed: stage 'out' (sink-file): " in result.stderr
    assert "still at work" not in result.stderr


def test_what_is_stuck_after_an_error_is_named_and_the_exit_code_is_that_of_the_error(tmp_path):
    """The source waits for its input and cannot be stopped."""
    path = pipeline(tmp_path, QUEUE_THAT_FAILS)
    with subprocess.Popen([PROGRAM, "run", path, "--drain", "1s"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=SOURCE) as process:
        process.stdin.write(SAMPLE.read_bytes())
        process.stdin.flush()
        assert process.wait(120) == 1
        assert b"failed: stage 'out' (sink-file): " in process.stderr.read()


def test_descriptors_that_are_closed_do_not_become_those_of_files(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, PRINT.replace('"-"', f'"{tmp_path}/out.jsonl"'))
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PROGRAM, "run", path, "--var", f"CAPTURE={SAMPLE}"],
                   cwd=SOURCE, check=True, timeout=120)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


def test_results_to_a_standard_output_that_is_closed_are_an_error(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, PRINT + 'retry_for = "0s"\n')
    result = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", PROGRAM, "run", path, "--var", f"CAPTURE={SAMPLE}"],
                            cwd=SOURCE, check=False, timeout=120, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert "Bad file descriptor" in result.stderr


def test_the_start_is_logged_with_version_and_stages(tmp_path):
    path = pipeline(tmp_path, '[pipeline]\nname = "p"\n', CAPTURE, SESSIONS, PRINT)
    result = run("run", path, "--var", f"CAPTURE={SAMPLE}")
    assert re.search(rf"^millrace: millrace [0-9.]+: pipeline 'p' \({path}\): capture \(source-pcap\), "
                     r"sessions \(split-memory\), print \(sink-file\)$", result.stderr, re.M), result.stderr


def test_a_plugin_that_is_not_named_is_never_opened(tmp_path):
    """The broken ones lie in the same folder."""
    path = pipeline(tmp_path, CAPTURE, '[stage.x]\nuse = "good"\nfrom = "capture"\n')
    result = run("run", path, "--plugins", TEST_PLUGINS, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments, words", [
    ((), "millrace run FILE"), (("rnu",), "did you mean 'run'?"), (("run",), "takes one pipeline file"),
    (("run", "x.toml", "--dran", "1s"), "did you mean --drain?"), (("run", "x.toml", "--drain", "1"), "a duration"),
    (("run", "/nonexistent.toml"), "No such file"), (("run", "/tmp"), "it is a folder"),
    (("graph", "a.toml", "b.toml"), "takes one pipeline file"), (("version", "x"), "takes no arguments"),
    (("--version", "x"), "takes no arguments"),
    (("check",), "takes a pipeline file"), (("plugins", "split-memroy"), "did you mean 'split-memory'?"),
    (("graph", "x", "--format", "png"), "text, dot or mermaid")])
def test_usage_errors_end_with_2(arguments, words):
    result = run(*arguments)
    assert result.returncode == 2
    assert words in result.stderr


def test_plugins_tells_everything_of_an_option():
    text = run("plugins", "split-memory").stdout
    for words in ("takes Packet, gives Session", "packets", "integer, 1 to 65535 (default: 24)", "max_bytes",
                  "(default: \"1GiB\")", "one of \"l7\", \"l4\", \"l2\" (default: \"l7\")", "workers must be 1",
                  "when_full"):
        assert words in text
    listed = json.loads(run("plugins", "--json").stdout)
    options = {o["name"]: o for p in listed for s in p["stages"] if s["use"] == "split-memory" for o in s["options"]}
    assert options["delay"]["default"] == '"10s"'


def test_plugins_says_which_options_are_secret():
    assert re.search(r"^ +token +text, secret ", run("plugins", "sink-http").stdout, re.M)
    listed = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").stdout)}
    options = {option["name"]: option["secret"] for option in listed["sink-http"]["stages"][0]["options"]}
    assert options["token"] and not options["url"]


def test_readmes_have_the_option_tables_of_the_plugins():
    listed = json.loads(run("plugins", "--json").stdout)
    assert listed
    for plugin in listed:
        table = run("plugins", plugin["name"], "--markdown").stdout
        readme = (SOURCE / "plugins" / plugin["name"] / "README.md").read_text(encoding="utf-8")
        assert table.strip() in readme, f"run scripts/update-readmes: {plugin['name']}"


def test_graph_draws_the_stages(tmp_path):
    path = pipeline(tmp_path, '[pipeline]\nname = "p"\n', CAPTURE, SESSIONS, PRINT)
    assert "--Packet--> sessions" in run("graph", path).stdout
    assert '"capture" -> "sessions" [label="Packet"]' in run("graph", path, "--format", "dot").stdout
    assert "capture -- Packet --> sessions" in run("graph", path, "--format", "mermaid").stdout


def test_json_log_is_json_on_every_line(tmp_path):
    path = pipeline(tmp_path, CAPTURE, SESSIONS, PRINT)
    result = run("run", path, "--log-format", "json", "--var", f"CAPTURE={SAMPLE}")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    summary = next(line for line in lines if line.get("summary"))
    assert [stage["stage"] for stage in summary["stages"]] == ["capture", "sessions", "print"]
    bad = run("run", path, "--log-format", "json", "--var", "CAPTURE=/nonexistent")
    assert bad.returncode == 2
    assert any("no file '/nonexistent'" in json.loads(line)["message"] for line in bad.stderr.splitlines())
    missing = run("run", tmp_path / "none.toml", "--log-format", "json")
    assert json.loads(missing.stderr)["message"].startswith(f"{tmp_path}/none.toml: cannot read")


def test_a_file_for_dead_letters_that_cannot_be_opened_is_told_where_it_stands(tmp_path):
    path = pipeline(tmp_path, CAPTURE, '[stage.x]\nuse = "good"\nfrom = "capture"\n'
                    'on_reject = { file = "/nonexistent/dead.jsonl" }\n')
    result = run("run", path, "--plugins", TEST_PLUGINS, "--var", f"CAPTURE={SAMPLE}")
    assert result.returncode == 2
    line = path.read_text(encoding="utf-8").splitlines().index('on_reject = { file = "/nonexistent/dead.jsonl" }') + 1
    assert f"{path}:{line}:13: error: the file for dead letters" in result.stderr, result.stderr


def test_the_summary_is_in_line_for_long_names(tmp_path):
    path = pipeline(tmp_path, CAPTURE, '[stage.a-name-of-more-than-16-characters]\nuse = "good"\nfrom = "capture"\n')
    result = run("run", path, "--plugins", TEST_PLUGINS, "--var", f"CAPTURE={SAMPLE}")
    table = result.stderr.splitlines()[-3:]
    assert [line.split()[0] for line in table] == ["stage", "capture", "a-name-of-more-than-16-characters"]
    assert len({len(line) for line in table}) == 1, result.stderr
