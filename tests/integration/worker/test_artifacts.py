"""Prepared encoders: near to FP32, the same in any company, refused where they do not belong."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.config import WorkerConfig
from synapse_worker.supervisor import Supervisor
from tests.integration.worker.conftest import EMBEDDER, ROOT, VENV
from tests.integration.worker.test_embedding import TEXTS, VECTORS, texts

# Lengths of all kinds beside the reference's, one of them far longer than the rest.
MORE = [
    "a",
    "The quick brown fox jumps over the lazy dog. " * 20,
    "números y 漢字 😀",
    "x = [1, 2]",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with both precisions, and what was found of them."""
    root = tmp_path_factory.mktemp("artifacts")
    done = subprocess.run(
        [VENV / "bin" / "python", Path(__file__).with_name("encoder_checks.py"), root],
        input="\n".join([*TEXTS, *MORE]),
        env={**os.environ, "PYTHONPATH": str(ROOT / "workers")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


def test_what_was_optimised_beforehand_answers_the_same(
    prepared: tuple[Path, dict[str, Any]],
) -> None:
    _, found = prepared

    assert found["texts"] == len(TEXTS) + len(MORE)
    assert found["fp32"] > 0.99999
    assert found["plain"] > 0.99999


def test_weights_left_in_their_file_are_the_same(prepared: tuple[Path, dict[str, Any]]) -> None:
    root, found = prepared

    assert found["whole"] < 1e-6
    assert found["linked"] == 0
    assert (root / "fp32.onnx").stat().st_size < 100_000 < (root / "fp32.weights").stat().st_size


def test_eight_bits_turn_no_vector_far(prepared: tuple[Path, dict[str, Any]]) -> None:
    _, found = prepared

    assert 0.99 < found["int8"] < 0.9999


def test_in_eight_bits_no_text_depends_on_those_beside_it(
    prepared: tuple[Path, dict[str, Any]],
) -> None:
    _, found = prepared

    assert found["int8_alone"] < 1e-3
    assert found["fp32_alone"] < 1e-5


def test_what_was_prepared_for_something_else_is_refused(
    prepared: tuple[Path, dict[str, Any]],
) -> None:
    _, found = prepared
    *refusals, nothing = found["refused"]
    weights, runtime, processor = refusals

    assert "was prepared for weights_sha256 'another'" in weights
    assert "was prepared for weights_sha256" in found["trained_on"]
    assert "was prepared for onnxruntime '0.1'" in runtime
    assert "was prepared for processor 'another'" in processor
    assert all(
        "synapse_worker.artifacts onnx --precision int8" in each for each in found["refused"][:3]
    )
    assert nothing == ""


@pytest.mark.asyncio(loop_scope="session")
async def test_a_pool_may_serve_eight_bits(
    prepared: tuple[Path, dict[str, Any]], worker_state: Path
) -> None:
    root, _ = prepared
    config = WorkerConfig(
        models=(EMBEDDER,),
        venv=VENV,
        state_dir=worker_state,
        log_file=worker_state / "int8.log",
        model_parameters={EMBEDDER: {"precision": "int8", "artifacts": str(root)}},
    )
    async with (
        Supervisor(config) as supervisor,
        InferenceServerClient(supervisor.grpc_address) as client,
    ):
        answer = await client.infer(EMBEDDER, [texts(*TEXTS)])
        found = answer.as_numpy("embedding")

    cosines = np.sum(found * VECTORS, axis=1)
    assert 0.99 < cosines.min() < 0.9999
