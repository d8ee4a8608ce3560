"""A container's worker, from its start to its last words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.pool import Pool
from synapse.domain.worker import WorkerState
from synapse_container.worker import run_worker
from synapse_worker import triton
from synapse_worker.agent import AgentConfig
from synapse_worker.agent.serving import ControlConfig
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError

POOL = Pool("gpu-ecs", "gpu")


async def test_a_worker_that_does_not_come_up_leaves_behind_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "CONTAINER_SERVER", tmp_path / "tritonserver")
    registry = LocalWorkerRegistry()
    config = AgentConfig(WorkerConfig(models=("echo",), venv=None, state_dir=tmp_path / "state"))

    with pytest.raises(WorkerError, match="There is no Triton"):
        await run_worker(config, ControlConfig(), POOL, registry)

    [left] = await registry.workers(time.time())
    assert (left.pool, left.state, left.has_ended) == ("gpu-ecs", WorkerState.DEGRADED, True)
    assert left.detail == f"There is no Triton at {tmp_path / 'tritonserver'}"
