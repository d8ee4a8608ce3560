from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse_worker.backends.vllm import prioritising
from synapse_worker.errors import InvalidRequest, WorkerError

# The shape of Triton's vLLM backend as far as it is leant on: a module that takes its request class
# from a module beside it, and hands it the engine's `generate`.
MODEL = """
from utils.request import GenerateRequest


class TritonPythonModel:
    def infer(self, request):
        return GenerateRequest(request, self.generate, "dtype", "logger").execute()

    def generate(self, prompt, sampling, request_id, lora_request=None, priority=0):
        return (prompt, priority)
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


def a_request(**parameters: Any) -> SimpleNamespace:
    return SimpleNamespace(parameters=lambda: json.dumps(parameters))


def test_a_requests_priority_is_given_to_the_engine(backend: Path) -> None:
    model: Any = prioritising(backend)()

    assert model.infer(a_request(request_priority=-3)) == ("a prompt", -3)


def test_a_request_without_a_priority_is_an_ordinary_one(backend: Path) -> None:
    model: Any = prioritising(backend)()

    assert model.infer(a_request()) == ("a prompt", 0)


def test_a_priority_that_is_no_number_is_refused(backend: Path) -> None:
    model: Any = prioritising(backend)()

    with pytest.raises(InvalidRequest, match="request_priority"):
        model.infer(a_request(request_priority="first"))


def test_an_image_without_the_backend_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="no vLLM backend"):
        prioritising(tmp_path)


def test_a_backend_built_otherwise_is_refused_with_a_way_out(backend: Path) -> None:
    (backend / "model.py").write_text("class TritonPythonModel: ...")

    with pytest.raises(WorkerError, match=r"config\.pbtxt"):
        prioritising(backend)


def test_the_models_for_gpus_ask_vllm_to_heed_priorities() -> None:
    models = Path("workers/triton/models-gpu")
    folders = [path.parent for path in models.glob("*/config.pbtxt")]
    assert folders

    for folder in folders:
        engine = json.loads((folder / "1" / "model.json").read_text())
        assert engine["scheduling_policy"] == "priority"
        assert "prioritising()" in (folder / "1" / "model.py").read_text()
