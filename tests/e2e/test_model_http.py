"""The model behind a service: the same answers as in the process itself."""
import socket
import sqlite3

import flask_service
import pytest
from millrace import BUILD, SAMPLE, SOURCE, Running, run
from server_flow import need_plugins

MODELS = ("ustc-tfc2016-fast", "ustc-tfc2016")
PLUGINS = ("model-http", "model-torch", "sink-sqlite", "source-pcap", "split-memory")
NOT_BUILT = [name for name in PLUGINS if not (BUILD / f"lib/millrace/plugins/{name}.so").exists()]

pytestmark = [
    pytest.mark.skipif(bool(NOT_BUILT), reason=f"not built, a library is not installed: {', '.join(NOT_BUILT)}"),
    pytest.mark.skipif(bool(flask_service.missing()),
                       reason=f"not installed: {', '.join(flask_service.missing())}")]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """The service is asked directly, whatever proxy the environment names."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def arguments(model, database, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return ["pipelines/standalone.toml", "--var", f"CAPTURE={SAMPLE}", "--var", f"DATABASE={database}",
            "--var", f"MODEL=models/{model}.pt", *words]


def rows(database) -> dict[str, tuple]:
    with sqlite3.connect(database) as connection:
        return {session: rest for session, *rest in connection.execute(
            "SELECT session, model, packets, label, confidence FROM sessions")}


def standalone(folder, model, *settings) -> dict[str, tuple]:
    database = folder / "sessions.db"
    database.unlink(missing_ok=True)
    result = run("run", *arguments(model, database, *settings))
    assert result.returncode == 0, result.stderr
    return rows(database)


def same(found, expected):
    assert found.keys() == expected.keys()
    for session, (*facts, confidence) in found.items():
        assert facts == expected[session][:-1]
        assert confidence == pytest.approx(expected[session][-1], abs=1e-4)


@pytest.fixture(params=MODELS)
def model(request):
    return request.param


@pytest.fixture
def service(model, tmp_path):
    made = flask_service.Service(tmp_path, SOURCE / f"models/{model}.pt")
    yield made
    made.stop()


def test_a_service_gives_what_the_model_gives(model, service, tmp_path):
    http = ("model.use=model-http", f"model.url={service.url}")
    shipped = standalone(tmp_path, model)
    assert len(shipped) > 20
    same(standalone(tmp_path, model, *http), shipped)
    # The sample's sessions are of none of the classes: every answer counts, to see labels as well.
    every = "model.min_confidence=0.0"
    expected = standalone(tmp_path, model, every)
    assert len({label for _, _, label, _ in expected.values()}) > 3
    for more in (("model.batch=1", "model.workers=3"), ("model.probabilities=true",)):
        same(standalone(tmp_path, model, *http, every, *more), expected)


@pytest.mark.parametrize("file", ["standalone", "server"])
def test_the_shipped_pipelines_take_it_by_two_settings(file):
    if file == "server":
        need_plugins()
    result = run("check", "--no-env", f"pipelines/{file}.toml", "--set", "model.use=model-http", "--set",
                 "model.url=http://127.0.0.1:8000")
    assert result.returncode == 0, result.stderr


def test_a_service_with_another_model_is_told_at_the_start(model, service, tmp_path):
    other = MODELS[1 - MODELS.index(model)]
    result = run("run", *arguments(other, tmp_path / "s.db", "model.use=model-http", f"model.url={service.url}"))
    assert result.returncode == 2
    assert f"answered 400: {{\"error\":\"the model here is '{model}', not '{other}'\"}}" in result.stderr


def test_a_run_waits_for_a_service_that_comes_later(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = tmp_path / "sessions.db"
    running = Running(tmp_path / "log", *arguments(MODELS[0], database, "model.use=model-http", "model.workers=1",
                                                   f"model.url=http://127.0.0.1:{port}", "model.connect_timeout=1s"))
    try:
        running.wait_for("trying again")
        service = flask_service.Service(tmp_path, SOURCE / f"models/{MODELS[0]}.pt", port)
        try:
            assert running.process.wait(120) == 0, running.text()
        finally:
            service.stop()
    finally:
        running.kill()
    same(rows(database), standalone(tmp_path, MODELS[0]))
