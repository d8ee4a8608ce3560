"""What refused requests leave behind in a real Triton: nothing."""

from __future__ import annotations

import os
from pathlib import Path

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import InvalidInput
from synapse.domain.model import ModelSpec
from synapse_worker.agent import Agent, AgentConfig
from synapse_worker.config import WorkerConfig
from tests.e2e.daemon import ROOT
from tests.factories import a_pool
from tests.patience import PATIENCE_S
from tests.unit.triton.asking import ask, outcome

REFUSALS = 300
"""Of so many, had they been hung up on, Triton would not be done with one or another."""


async def test_a_model_that_refused_many_requests_can_be_unloaded(
    llm: ModelSpec, tmp_path: Path
) -> None:
    venv = ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker")
    worker = WorkerConfig(models=(llm.name,), venv=venv, state_dir=tmp_path, stop_timeout_s=1.0)
    agent = Agent(AgentConfig(worker, drain_timeout_s=PATIENCE_S))
    await agent.start()
    try:
        async with TritonEngine() as engine:
            pool = a_pool(endpoint=agent.grpc_address)
            for _ in range(REFUSALS):
                refused = ask("hi", parameters={"logit_bias": {"900000": 1}})
                assert isinstance(await outcome(engine, llm, pool, refused), InvalidInput)

        await agent.unload(llm.name)
    finally:
        await agent.stop()
