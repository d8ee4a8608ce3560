"""What is prepared for GPUs and Neuron cores, as far as it can be tried without either."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from synapse_worker.artifacts import __main__ as command
from synapse_worker.artifacts import neuron, tensorrt
from synapse_worker.errors import WorkerError
from tests.unit.worker.a_model import HIDDEN, a_model

TRTEXEC = """#!/bin/sh
echo "$@" > "{said}"
for argument in "$@"; do
    case "$argument" in
        --onnx=*) test -s "${{argument#--onnx=}}" || exit 3 ;;
        --saveEngine=*) echo plan > "${{argument#--saveEngine=}}" ;;
    esac
done
{end}
"""


def put_trtexec(root: Path, monkeypatch: pytest.MonkeyPatch, end: str = "exit 0") -> Path:
    """A program in its place that checks its graph; returns where it writes what it was told."""
    tools, said = root / "bin", root / "said"
    tools.mkdir()
    (tools / "trtexec").write_text(TRTEXEC.format(said=said, end=end))
    (tools / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return said


def test_a_triton_model_is_made_around_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = put_trtexec(tmp_path, monkeypatch)
    plan = tensorrt.prepare(a_model(tmp_path / "m"), "minilm-gpu", tmp_path, rows=8, tokens=512)

    assert plan == tmp_path / "minilm-gpu" / "1" / "model.plan"
    assert plan.read_text() == "plan\n"
    # The longest text is what the model has positions for.
    assert "--maxShapes=input_ids:8x16,lengths:8,weights:8x1x16" in said.read_text()
    assert "--minShapes=input_ids:1x1,lengths:1,weights:1x1x1" in said.read_text()
    config = (tmp_path / "minilm-gpu" / "config.pbtxt").read_text()
    assert 'name: "minilm-gpu"' in config
    assert f"dims: [ -1, {HIDDEN} ]" in config
    assert config.count("{") == config.count("}") == 5
    assert not (plan.parent / "model.onnx").exists()


def test_without_tensorrt_it_is_said_where_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = a_model(tmp_path / "m")
    arguments = ["--model-path", str(model), "--to", str(tmp_path / "out")]

    assert command.main(["tensorrt", "--name", "minilm", *arguments]) == 1
    assert "no trtexec" in (said := capsys.readouterr().err)
    assert "container" in said
    assert not (tmp_path / "out").exists()


def test_what_tensorrt_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_trtexec(tmp_path, monkeypatch, end='echo "no such GPU" >&2; exit 1')

    with pytest.raises(WorkerError, match=r"ended with 1 and made no plan: no such GPU"):
        tensorrt.prepare(a_model(tmp_path / "m"), "minilm", tmp_path, rows=1, tokens=8)


def test_without_neurons_toolchain_it_is_said_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"There is no (torch|torch_neuronx|transformers) here"):
        neuron.prepare(a_model(tmp_path / "m"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Tensor:
    """Its shape."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape


def a_toolchain(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Modules with what is called of them; returns the shapes that were traced."""
    torch, torch_neuronx, transformers = (ModuleType(name) for name in neuron.NEEDED)
    traced: list[tuple[int, int]] = []

    class Module:
        def eval(self) -> Module:
            return self

    def trace(model: object, example: tuple[Tensor, Tensor]) -> tuple[int, int]:
        assert isinstance(model, Module)
        assert example[0].shape == example[1].shape
        traced.append(example[0].shape)
        return example[0].shape

    fakes: dict[ModuleType, dict[str, Any]] = {
        torch: {
            "nn": ModuleType("nn"),
            "jit": ModuleType("jit"),
            "long": "int64",
            "zeros": lambda shape, dtype: Tensor(shape),
            "ones_like": lambda other: Tensor(other.shape),
        },
        torch_neuronx: {"trace": trace},
        transformers: {"AutoModel": type("AutoModel", (), {"from_pretrained": str})},
    }
    for module, parts in fakes.items():
        for name, part in parts.items():
            setattr(module, name, part)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.nn.Module = Module
    torch.jit.save = lambda what, path: Path(path).write_text(str(what))
    return traced


def test_neuron_gets_a_file_for_each_shape_that_the_model_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = a_toolchain(monkeypatch)
    shapes = ((1, 8), (4, 8), (4, 16), (4, 32))
    written = neuron.prepare(a_model(tmp_path / "m"), tmp_path / "out", shapes)

    assert traced == [(1, 8), (4, 8), (4, 16)]
    assert [path.name for path in written] == ["1x8.pt", "4x8.pt", "4x16.pt"]
    assert all(path.is_file() for path in written)


def test_the_command_names_its_targets() -> None:
    """As a process of its own: nothing that only some targets need is imported for its help."""
    module = "synapse_worker.artifacts"
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )

    assert set(re.findall(r"^    (\w+) ", done.stdout, re.MULTILINE)) == {
        "onnx",
        "tensorrt",
        "neuron",
    }


def test_a_model_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-path", str(tmp_path), "--to", str(tmp_path / "out")]

    assert command.main(["neuron", *arguments]) == 1
    assert "No model.safetensors in" in capsys.readouterr().err
