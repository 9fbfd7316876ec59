"""A pipeline with [config]: a process for each configuration, started, replaced and ended as it should be."""
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import urllib.request

import pytest
from millrace import BUILD, SAMPLE, Running, health, pipeline, run, until

FILE = """
[pipeline]
name = "supervised"

[config]
use  = "config-file"
path = "{path}"

[stage.capture]
use       = "source-pcap"
interface = "${{config.interface}}"
filter    = "${{config.filter:-}}"

[stage.sessions]
use  = "split-memory"
from = "capture"

[stage.count]
use  = "sink-count"
from = "sessions"
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: a capture on an interface needs root")


def processes(parent: int) -> list[int]:
    """Living children."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Agent(Running):
    """A supervised capture on the loopback."""

    def __init__(self, folder: pathlib.Path, values: str, *arguments, **options):
        self.values = folder / "values.toml"
        self.write(values)
        path = pipeline(folder, FILE.format(path=self.values))
        super().__init__(folder / "agent.log", path, *arguments, **options)

    def write(self, values: str):
        new = self.values.with_suffix(".new")
        new.write_text(values, encoding="utf-8")
        new.rename(self.values)

    def runs_with(self, generation: int, count: int = 1) -> int:
        """Waits for it; the pipeline's process."""
        self.wait_for(rf"runs with generation {generation}\b", 30, count)
        return until(lambda: processes(self.process.pid), 5, "a process")[0]


@pytest.fixture
def agent(tmp_path):
    started = []

    def start(values='interface = "lo"\n', *arguments, **options):
        started.append(Agent(tmp_path, values, *arguments, **options))
        return started[-1]
    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


@needs_root
def test_a_change_replaces_the_process_and_equal_values_do_not(agent):
    it = agent()
    first = it.runs_with(1)
    it.write('filter = "udp"\ninterface = "lo"\n')
    it.wait_for(r"generation 2 is good; restarting")
    second = it.runs_with(2)
    assert second != first and not is_alive(first)
    it.write('interface = "lo"\nfilter = "udp" # the same\n')
    it.wait_for(r"generation 3 has the values that are in use")
    assert processes(it.process.pid) == [second]
    text = it.drain()
    assert text.count("draining") == 2
    assert not is_alive(second)


@needs_root
@pytest.mark.parametrize("true, false", [("true", "false"), ("'1'", "'0'")])
@needs_root
def test_a_paused_configuration_drains_the_pipeline_until_it_changes(agent, true, false):
    agent = agent("interface = 'lo'\n")
    first = agent.runs_with(1)
    agent.write(f"interface = 'lo'\npaused = {true}\n")
    agent.wait_for("generation 2 pauses the pipeline: draining it")
    agent.wait_for("the pipeline is paused")
    assert not is_alive(first) and not processes(agent.process.pid)
    agent.write(f"interface = 'nope'\npaused = {true}\n")  # not looked at yet
    agent.wait_for("generation 3 pauses the pipeline$")
    agent.write(f"interface = 'lo'\npaused = {false}\n")
    agent.runs_with(4)
    agent.write("interface = 'lo'\npaused = 'perhaps'\n")
    agent.wait_for("generation 5 cannot be applied")
    agent.wait_for("expected true or false")
    assert processes(agent.process.pid)


@needs_root
def test_a_pipeline_that_was_paused_starts_with_the_values_that_it_had(agent):
    agent = agent("interface = 'lo'\n")
    agent.runs_with(1)
    agent.write("interface = 'lo'\npaused = true\n")
    agent.wait_for("the pipeline is paused")
    agent.write("interface = 'lo'\n")
    agent.runs_with(3)


def test_values_stand_on_no_command_line(agent):
    it = agent('interface = "lo"\nfilter = "port 4711"\n')
    child = it.runs_with(1)
    for pid in (it.process.pid, child):
        assert b"4711" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"4711" not in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    it.drain()


WRONG = {
    "an unknown interface": ('interface = "nosuch0"\n', "there is no interface 'nosuch0'"),
    "a bad filter": ('interface = "lo"\nfilter = "tcp prot 80"\n', "is no BPF filter"),
    "no TOML": ('interface = = "lo"\n', r"values\.toml:1:\d+"),
    "a value that is missing": ('filter = "tcp"\n', "the config provider gives no value 'interface'"),
}


@needs_root
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_configuration_leaves_the_running_one_alone(agent, what):
    values, message = WRONG[what]
    it = agent()
    child = it.runs_with(1)
    it.write(values)
    it.wait_for(r"generation 2 cannot be applied, the pipeline goes on as before")
    it.wait_for(message)
    assert processes(it.process.pid) == [child]
    it.write('interface = "lo"\nfilter = "icmp"\n')
    assert it.runs_with(3) != child
    it.drain()


def test_a_configuration_that_does_not_come_up_gives_way_to_the_last_that_did(tmp_path):
    """Only opening its stages shows that it does not work."""
    values = tmp_path / "values.toml"
    values.write_text('fault = "none"\n', encoding="utf-8")
    path = pipeline(tmp_path, FILE.format(path=values).replace('interface = "${config.interface}"', 'file = "-"') +
                    '[stage.end]\nuse = "good"\nfrom = "capture"\nfault = "${config.fault}"\n')
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as silence:
        it = Running(tmp_path / "log", path, "--plugins", BUILD / "tests/plugins", stdin=silence.stdout)
        try:
            it.wait_for("runs with generation 1")
            new = values.with_suffix(".new")
            new.write_text('fault = "open"\n', encoding="utf-8")
            new.rename(values)
            it.wait_for("going back to generation 1")
            assert it.text().count("the pipeline ended with exit code 1:\n  end: cannot start: open was told to throw") == 3
            it.wait_for("runs with generation 1", count=2)
            it.drain()
        finally:
            silence.kill()
            it.kill()


@pytest.fixture
def supervised(tmp_path):
    """A pipeline that waits for its input, under a supervisor that waits for its values; writes values, and the address."""
    values = tmp_path / "values.toml"
    path = pipeline(tmp_path, FILE.format(path=values).replace('interface = "${config.interface}"', 'file = "-"') +
                    '[stage.end]\nuse = "good"\nfrom = "capture"\nfault = "${config.fault}"\n')

    def write(text):
        new = values.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(values)
    write('= no TOML\n')
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as silence:
        it = Running(tmp_path / "log", path, "--plugins", BUILD / "tests/plugins", "--admin", "127.0.0.1:0",
                     stdin=silence.stdout)
        try:
            yield it, write, it.wait_for(r"health and metrics on (\S+)").group(1)
        finally:
            silence.kill()
            it.kill()


def test_health_answers_before_during_and_between_pipelines(supervised):
    it, write, url = supervised
    status, answer = until(lambda: (found := health(url))[1].get("reasons") and found, 30, "a reason")
    assert status == 503 and answer["status"] == "starting" and answer["applied"] == 0, answer
    it.wait_for("cannot be applied")
    until(lambda: any("cannot be applied" in one["what"] for one in health(url)[1]["reasons"]), 30, "the error")
    write('fault = "none"\n')
    until(lambda: health(url)[0] == 200, 30, "it is ready")
    good = health(url)[1]
    assert good["ready"] and good["status"] == "running" and good["applied"] == good["newest"], good
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        metrics = response.read().decode()
    assert metrics.count("# HELP millrace_ready ") == 1
    assert "\nmillrace_ready 1\n" in metrics
    assert re.search(r"^millrace_config_generation \d+$", metrics, re.M)
    assert 'millrace_items_in_total{stage="sessions"}' in metrics
    write('fault = "nosuch"\n')
    answer = until(lambda: (found := health(url))[0] == 503 and found[1], 30, "the refused one")
    assert answer["status"] == "running" and answer["applied"] == good["applied"] < answer["newest"], answer
    assert any(one["stage"] == "config" and f"generation {answer['newest']} cannot be applied" in one["what"]
               for one in answer["reasons"]), answer
    write('fault = "none" # again\n')
    until(lambda: health(url)[0] == 200, 30, "it is ready again")


def test_sighup_reads_the_pipeline_file_again(supervised):
    it, write, url = supervised
    write('fault = "none"\n')
    until(lambda: health(url)[0] == 200, 30, "it is ready")
    first = processes(it.process.pid)
    it.process.send_signal(signal.SIGHUP)
    it.wait_for("SIGHUP: reading the pipeline file again")
    it.wait_for(r"the pipeline runs with generation \d+", count=2)
    assert processes(it.process.pid) != first


def test_the_pipelines_process_is_called_millrace(supervised):
    it, write, url = supervised
    write('fault = "none"\n')
    it.wait_for(r"the pipeline runs with generation \d+")
    (child,) = processes(it.process.pid)
    assert pathlib.Path(f"/proc/{child}/comm").read_text(encoding="utf-8") == "millrace\n"


@pytest.mark.parametrize("arguments, words", [
    (("--stages", "..nowhere"), "--stages ..nowhere: there is no stage 'nowhere'"),
    (("--stages", "capture"), "--stages capture: expected ..QUEUE"),
    (("--user", "nobody-at-all"), "there is no user 'nobody-at-all'"),
    (("--admin", "here"), "--admin here: expected HOST:PORT")])
def test_wrong_arguments_end_it_before_anything_starts(tmp_path, arguments, words):
    values = tmp_path / "values.toml"
    values.write_text('interface = "lo"\n', encoding="utf-8")
    result = run("run", pipeline(tmp_path, FILE.format(path=values)), *arguments, timeout=30)
    assert result.returncode == 2
    assert words in result.stderr


@needs_root
def test_a_cut_that_the_plugins_do_not_allow_is_told_by_the_check(agent):
    it = agent('interface = "lo"\n', "--stages", "..sessions")
    it.wait_for(r"generation 1 cannot be applied:\n.*--stages ..sessions: there is no queue in stage 'sessions'")
    it.drain()


@needs_root
def test_a_wrong_first_configuration_waits_for_a_good_one(agent):
    it = agent('interface = "nosuch0"\n')
    it.wait_for(r"generation 1 cannot be applied:")
    assert not processes(it.process.pid)
    it.write('interface = "lo"\n')
    it.runs_with(2)
    it.drain()


@needs_root
def test_a_killed_supervisor_leaves_no_process_behind(agent):
    it = agent()
    child = it.runs_with(1)
    it.kill()
    until(lambda: not is_alive(child), 20, "the end of the pipeline's process")
    assert "the supervisor is gone" in it.text()


@needs_root
def test_a_pipeline_that_dies_is_started_again(agent):
    it = agent()
    child = it.runs_with(1)
    os.kill(child, signal.SIGKILL)
    it.wait_for(r"the pipeline ended with signal 9")
    pause = int(it.wait_for(r"starting the pipeline again in (\d+) ms").group(1))
    assert 0 < pause <= 1000
    assert it.runs_with(1, count=2) != child
    assert len(processes(it.process.pid)) == 1
    it.drain()


@needs_root
def test_a_stuck_pipeline_does_not_keep_the_supervisor(agent):
    it = agent('interface = "lo"\n', "--drain", "100ms")
    child = it.runs_with(1)
    os.kill(child, signal.SIGSTOP)
    it.process.send_signal(signal.SIGTERM)
    assert it.process.wait(30) == 1
    assert "does not end in time" in it.text()
    assert not is_alive(child)


def test_a_pipeline_that_ends_by_itself_ends_the_supervisor(tmp_path):
    values = tmp_path / "values.toml"
    values.write_text(f'file = "{SAMPLE}"\n', encoding="utf-8")
    path = pipeline(tmp_path, FILE.format(path=values).replace(
        'interface = "${config.interface}"', 'file = "${config.file}"'))
    result = run("run", path)
    assert result.returncode == 0, result.stderr
    assert "the pipeline has done its work" in result.stderr
    assert re.search(r"count +[1-9]\d+ ", result.stderr), result.stderr


def test_a_signal_before_there_are_values_ends_it(tmp_path):
    it = Running(tmp_path / "log", pipeline(tmp_path, FILE.format(path=tmp_path / "later.toml")))
    it.wait_for("later.toml")
    it.drain()


def test_mistakes_in_config_are_told_at_the_start(tmp_path):
    path = pipeline(tmp_path, FILE.format(path="x").replace("path =", "pth ="))
    for command in (("run", path), ("check", path)):
        result = run(*command)
        assert result.returncode == 2
        assert re.search(r"pipeline.toml:\d+:1: error: .*\[config\].*'pth'", result.stderr), result.stderr
        assert "did you mean 'path'?" in result.stderr


def test_check_leaves_values_of_the_provider_open(tmp_path):
    result = run("check", pipeline(tmp_path, FILE.format(path="x")))
    assert result.returncode == 0, result.stderr


@needs_root
def test_root_becomes_the_user_and_keeps_no_right(agent):
    it = agent('interface = "lo"\n', "--user", "nobody")
    child = it.runs_with(1)
    user = pwd.getpwnam("nobody")
    tasks = list(pathlib.Path(f"/proc/{child}/task").iterdir())
    assert len(tasks) > 1
    for task in tasks:
        status = dict(line.split(":", 1) for line in (task / "status").read_text(encoding="utf-8").splitlines())
        assert status["Uid"].split() == [str(user.pw_uid)] * 4
        assert status["Gid"].split() == [str(user.pw_gid)] * 4
        for right in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[right], 16) == 0, (task.name, right, status[right])
    # It captures all the same.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("127.0.0.1", 9))
    assert re.search(r"^count: sessions [1-9]", it.drain(), re.M), it.text()


def test_a_user_that_does_not_exist_is_told(tmp_path):
    path = pipeline(tmp_path, '[stage.a]\nuse = "source-pcap"\nfile = "x"\n'
                    '[stage.b]\nuse = "sink-pcap"\nfrom = "a"\npath = "/dev/null"\n')
    result = run("run", path, "--user", "nobody-at-all")
    assert result.returncode == 2
    assert "there is no user 'nobody-at-all'" in result.stderr
