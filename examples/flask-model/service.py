"""A model as a service that model-http asks (plugins/model-http/README.md has the protocol).

MODEL=models/NAME.pt gunicorn --bind 127.0.0.1:8000 service:app
"""
import base64
import binascii
import math
import os
import pathlib
import tomllib

import flask
import numpy
import torch


class Model:
    """A TorchScript file with its card (docs/formats.md)."""

    def __init__(self, path: pathlib.Path):
        card = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
        self.name, self.labels, self.input = card["name"], card["labels"], card["input"]
        torch.set_num_threads(1)  # gunicorn's workers are what uses the cores
        # The profiling executor would compile the graph anew during the first requests.
        torch._C._jit_set_profiling_mode(False)
        self.module = torch.jit.freeze(torch.jit.load(str(path), map_location="cpu").eval())

    def probabilities(self, rows: list[bytes]) -> list[list[float]]:
        """For each row one number a class."""
        data = numpy.frombuffer(b"".join(rows), numpy.uint8).reshape(len(rows), *self.input["shape"])
        with torch.inference_mode():
            tensor = torch.from_numpy(data.copy())
            if self.input["dtype"] == "float32":
                tensor = tensor.float().mul_(self.input.get("scale", 1.0))
            return torch.softmax(self.module(tensor), 1).tolist()


class BadRequest(Exception):
    """What is wrong with a request, for the one who made it."""


def rows_of(request, model: Model) -> list[bytes]:
    if not isinstance(request, dict) or not isinstance(request.get("sessions"), list):
        raise BadRequest('expected {"model": ..., "sessions": [...]}')
    if request.get("model") != model.name:
        raise BadRequest(f"the model here is '{model.name}', not '{request.get('model')}'")
    rows = []
    for number, session in enumerate(request["sessions"]):
        try:
            rows.append(base64.b64decode(session["features"], validate=True))
        except (TypeError, KeyError, binascii.Error, ValueError) as error:
            raise BadRequest(f"sessions[{number}] has no 'features' in base64") from error
        if len(rows[-1]) != model.input["bytes"]:
            raise BadRequest(f"sessions[{number}] has {len(rows[-1])} bytes; expected {model.input['bytes']}")
    return rows


def create_app(path: str) -> flask.Flask:
    model = Model(pathlib.Path(path))
    app = flask.Flask(__name__)

    @app.post("/v1/verdicts")
    def verdicts():
        try:
            rows = rows_of(flask.request.get_json(silent=True), model)
        except BadRequest as problem:
            return {"error": str(problem)}, 400
        answers = model.probabilities(rows) if rows else []
        # JSON has no NaN: null says that the model has no answer.
        return {"verdicts": [{"probabilities": p} if all(map(math.isfinite, p)) else None for p in answers]}

    @app.get("/health")
    def health():
        return {"model": model.name}

    return app


app = create_app(os.environ.get("MODEL", "models/ustc-tfc2016-fast.pt"))
