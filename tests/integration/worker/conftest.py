"""One real Triton for all tests that only talk to it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.config import WorkerConfig
from synapse_worker.supervisor import Supervisor

ROOT = Path(__file__).parents[3]
VENV = ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker")
LLM = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"


@pytest.fixture(scope="session")
def worker_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept for the whole run: its compiled Python and links are the same for every Triton."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def echo_config(worker_state: Path, tmp_path: Path) -> WorkerConfig:
    """A Triton that starts in a second, for tests that end it."""
    return WorkerConfig(
        models=("echo",),
        venv=VENV,
        state_dir=worker_state,
        log_file=tmp_path / "triton.log",
        model_parameters={"echo": {"test_hooks": "true"}},
    )


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def triton(worker_state: Path) -> AsyncIterator[Supervisor]:
    config = WorkerConfig(
        models=(LLM, EMBEDDER, "echo"),
        venv=VENV,
        state_dir=worker_state,
        log_file=worker_state / "shared.log",
        model_parameters={"echo": {"test_hooks": "true"}},
    )
    async with Supervisor(config) as supervisor:
        yield supervisor


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def client(triton: Supervisor) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(triton.grpc_address) as connected:
        yield connected
