"""A plugin that is begun with `millrace new-plugin`, outside the tree, as its README says."""
import os
import shlex
import subprocess

import pytest
from millrace import BUILD, CAPTURE, PRINT, SESSIONS, pipeline, run


def sh(command, folder, **env):
    result = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=600, check=False,
                            env={**os.environ, **env})
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def commands_of(readme: str) -> list[str]:
    return readme.split("```sh\n")[1].split("```")[0].splitlines()


@pytest.mark.parametrize("kind", ["source", "transform", "sink", "queue"])
def test_every_kind_builds_passes_its_test_and_is_listed(tmp_path, kind):
    result = run("new-plugin", f"my-{kind}2", "--kind", kind, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / f"my-{kind}2"
    commands = commands_of((folder / "README.md").read_text(encoding="utf-8"))
    assert len(commands) == 4
    for command in commands[:3]:
        output = sh(command, folder)
    assert "100% tests passed, 0 tests failed out of 2" in output
    assert f"my-{kind}2-pipelines" in output
    assert f'use = "my-{kind}2": {kind}' in sh(commands[3], folder)


def test_a_new_transform_runs_in_a_pipeline_from_an_installation(tmp_path):
    prefix = tmp_path / "prefix"
    sh(f"cmake --install {shlex.quote(str(BUILD))} --prefix {shlex.quote(str(prefix))}", tmp_path)
    millrace = prefix / "bin/millrace"
    sh(f"{millrace} new-plugin long-only --kind transform", tmp_path)
    folder = tmp_path / "long-only"
    commands = commands_of((folder / "README.md").read_text(encoding="utf-8"))
    assert str(prefix) in commands[0]
    for command in commands[:3]:
        sh(command, folder)
    path = pipeline(tmp_path, CAPTURE,
                    '[stage.long]\nuse = "long-only"\nfrom = "capture"\nmin_length = 100\n',
                    SESSIONS.replace('from = "capture"', 'from = "long"'), PRINT)
    run_it = subprocess.run([millrace, "run", path, "--plugins", folder / "build/plugins", "--var",
                             "CAPTURE=samples/sample.pcap"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                            check=False)
    assert run_it.returncode == 0, run_it.stderr
    assert "long: dropped too-short" in run_it.stderr
    assert run_it.stdout


@pytest.mark.parametrize("arguments, words", [
    ((), "takes one name"), (("Bad", "--kind", "sink"), "lower-case letters"), (("a--b", "--kind", "sink"), "single"),
    (("x", "--kind", "filter"), "expected source, transform, sink, queue"), (("x",), "expected source")])
def test_wrong_requests_change_nothing(tmp_path, arguments, words):
    result = run("new-plugin", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    result = run("new-plugin", "x", "--kind", "sink", cwd=tmp_path)
    assert result.returncode == 2
    assert "is there already" in result.stderr
    assert not list((tmp_path / "x").iterdir())
