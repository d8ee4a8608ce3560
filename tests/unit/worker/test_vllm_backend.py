from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse.adapters.catalogue import load_catalogue
from synapse.domain.extension import Extension
from synapse.domain.model import Task
from synapse_worker.backends.vllm import prioritising
from synapse_worker.errors import InvalidRequest, WorkerError

MODELS = Path("workers/triton/models-gpu")
NAMES = sorted(path.parent.name for path in MODELS.glob("*/config.pbtxt"))

# The shape of Triton's vLLM backend as far as it is leant on: a module that takes its request class
# from a module beside it, and hands it the engine's `generate`.
MODEL = """
import os

from utils.request import GenerateRequest


class TritonPythonModel:
    def initialize(self, args):
        self.began_in = os.getcwd()

    def infer(self, request):
        return GenerateRequest(request, self.generate, "dtype", "logger").execute()

    async def generate(self, prompt, sampling, request_id, lora_request=None, priority=0):
        yield (prompt, priority)
        if priority == 7:
            raise EngineDeadError("EngineCore encountered an issue")
        if priority == 8:
            raise ValueError("max_tokens must be at least 1")


class EngineDeadError(Exception): ...
"""
REQUEST = """
class GenerateRequest:
    def __init__(self, request, executor_callback, output_dtype, logger):
        self.executor_callback = executor_callback

    def execute(self):
        return self.executor_callback("a prompt", {}, "id", lora_request=None)
"""


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "request.py").write_text(REQUEST)
    (tmp_path / "model.py").write_text(MODEL)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
        del sys.modules[name]


async def written(model: Any, request: Any) -> list[Any]:
    return [output async for output in model.infer(request)]


def a_request(**parameters: Any) -> SimpleNamespace:
    return SimpleNamespace(parameters=lambda: json.dumps(parameters))


async def test_a_requests_priority_is_given_to_the_engine(backend: Path) -> None:
    model: Any = prioritising(backend)()

    assert await written(model, a_request(request_priority=-3)) == [("a prompt", -3)]


async def test_a_request_without_a_priority_is_an_ordinary_one(backend: Path) -> None:
    model: Any = prioritising(backend)()

    assert await written(model, a_request()) == [("a prompt", 0)]


async def test_an_engine_that_has_died_ends_its_process(
    backend: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = prioritising(backend)()
    ended: list[int] = []
    monkeypatch.setattr("synapse_worker.backends.vllm.os._exit", ended.append)

    with pytest.raises(ValueError, match="max_tokens"):
        await written(model, a_request(request_priority=8))
    assert not ended, "that one request is refused"

    with pytest.raises(Exception, match="EngineCore"):
        await written(model, a_request(request_priority=7))
    assert ended == [71]
    assert "has died" in capsys.readouterr().err


def test_a_priority_that_is_no_number_is_refused(backend: Path) -> None:
    model: Any = prioritising(backend)()

    with pytest.raises(InvalidRequest, match="request_priority"):
        model.infer(a_request(request_priority="first"))


@pytest.mark.parametrize("source", ["./weights", "org/model", "/srv/weights"])
def test_weights_beside_the_model_are_found_from_its_own_folder(
    backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"model": source}))
    model: Any = prioritising(backend)()

    model.initialize({"model_repository": str(folder.parent), "model_version": "1"})

    assert model.began_in == str(folder if source == "./weights" else tmp_path)


def test_an_image_without_the_backend_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="no vLLM backend"):
        prioritising(tmp_path)


def test_a_backend_built_otherwise_is_refused_with_a_way_out(backend: Path) -> None:
    (backend / "model.py").write_text("class TritonPythonModel: ...")

    with pytest.raises(WorkerError, match=r"config\.pbtxt"):
        prioritising(backend)


@pytest.mark.parametrize("model", NAMES)
def test_no_model_for_gpus_is_unloaded_when_its_engine_has_died(model: str) -> None:
    # For nobody loads it again: its process ends instead, and is started again.
    assert "HEALTH_CHECK" not in (MODELS / model / "config.pbtxt").read_text()


def engine_of(model: str) -> dict[str, Any]:
    engine: dict[str, Any] = json.loads((MODELS / model / "1" / "model.json").read_text())
    return engine


@pytest.mark.parametrize("model", NAMES)
def test_the_models_for_gpus_ask_vllm_to_heed_priorities(model: str) -> None:
    assert engine_of(model)["scheduling_policy"] == "priority"
    assert "prioritising()" in (MODELS / model / "1" / "model.py").read_text()


@pytest.mark.parametrize("model", NAMES)
def test_the_models_for_gpus_are_those_of_the_catalogue(model: str) -> None:
    spec = {each.name: each for each in load_catalogue()}[model]

    assert f'name: "{model}"' in (MODELS / model / "config.pbtxt").read_text()
    assert spec.task is Task.GENERATE
    assert (MODELS / model / spec.version).is_dir()
    assert engine_of(model)["max_model_len"] == spec.context_tokens
    assert Extension.PRIORITY in spec.extensions


def test_an_image_for_gpus_serves_by_itself_what_it_has() -> None:
    assert f'CMD ["--models", "{NAMES[0]}"]' in Path("workers/Dockerfile").read_text()
    assert NAMES == ["smollm2-135m-instruct"]
