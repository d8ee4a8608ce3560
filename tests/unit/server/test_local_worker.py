"""What a worker's heartbeats say: the agent's word while it starts, the engine's proof after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, WorkerModel, WorkerState
from synapse_server import local_worker
from synapse_server.local_worker import LocalWorker, WorkerSetup, worker_of
from synapse_worker.agent import AgentState, ModelStatus, Snapshot
from synapse_worker.agent import CacheLevel as AgentCacheLevel
from tests.factories import NOW

POOL = Pool("fast", "gpu")


class SlowToDrain:
    """An agent that has waited in vain so many times before nothing is under way any more."""

    def __init__(self, in_vain: int) -> None:
        self.in_vain = in_vain
        self.asked = 0

    async def drain(self) -> bool:
        self.asked += 1
        return self.asked > self.in_vain

    def snapshot(self) -> Snapshot:
        return a_snapshot(state=AgentState.DEGRADED, detail="draining")


async def test_a_worker_is_drained_when_it_is_quiet_not_when_its_agent_gives_up_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = SlowToDrain(in_vain=3)
    monkeypatch.setattr(local_worker, "DRAIN_AGAIN_S", 0.001)
    monkeypatch.setattr(local_worker, "Agent", lambda *_, **__: agent)
    setup = WorkerSetup("fast-1", POOL, (), {}, (), tmp_path, tmp_path)
    registry = LocalWorkerRegistry()

    await LocalWorker(setup, registry, lambda: NOW).drain()

    assert agent.asked == 4
    [seen] = await registry.workers(NOW)
    assert (seen.state, seen.detail) == (WorkerState.DEGRADED, "draining")


LEASE_S = 15.0


def a_snapshot(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "id": "fast-1",
        "state": AgentState.READY,
        "accelerator": "gpu",
        "endpoint": "127.0.0.1:8001",
        "models": (ModelStatus("echo", "1", AgentCacheLevel.GPU_RESIDENT, "127.0.0.1:8001"),),
        "at": NOW,
        "started_at": NOW - 60,
        "answered_at": NOW - 1,
    }
    return Snapshot(**{**fields, **changes})


def test_a_worker_has_the_models_that_answer_not_those_it_could_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    near = ModelStatus("other", "1", AgentCacheLevel.NVME_CACHED)
    snapshot = a_snapshot(models=(*a_snapshot().models, near))
    agent = SimpleNamespace(snapshot=lambda: snapshot)
    monkeypatch.setattr(local_worker, "Agent", lambda *_, **__: agent)
    setup = WorkerSetup("fast-1", POOL, (), {}, (), tmp_path, tmp_path)

    assert LocalWorker(setup, LocalWorkerRegistry(), lambda: NOW).models == ["echo"]


def test_the_words_of_agent_and_domain_are_the_same() -> None:
    assert {state.value for state in AgentState} == {state.value for state in WorkerState}
    assert {level.value for level in AgentCacheLevel} == {level.value for level in CacheLevel}


def test_a_snapshot_is_told_as_it_is() -> None:
    snapshot = a_snapshot(
        state=AgentState.INFERRING,
        queue_length=3,
        gpu_utilisation=0.5,
        free_memory_bytes=1000,
        kv_cache_use=0.25,
        kv_cache_hit_rate=0.75,
        detail="well",
    )

    worker = worker_of(snapshot, POOL, NOW, LEASE_S)

    assert (worker.id, worker.pool, worker.accelerator) == ("fast-1", "fast", "gpu")
    assert worker.state is WorkerState.INFERRING
    assert worker.endpoint == "127.0.0.1:8001"
    assert worker.models == (WorkerModel("echo", "1", CacheLevel.GPU_RESIDENT),)
    assert worker.has("echo")
    assert (worker.started_at, worker.beat_at) == (NOW - 60, NOW)
    assert (worker.queue_length, worker.gpu_utilisation, worker.free_memory_bytes) == (3, 0.5, 1000)
    assert (worker.kv_cache_use, worker.kv_cache_hit_rate, worker.detail) == (0.25, 0.75, "well")


@pytest.mark.parametrize("state", [AgentState.READY, AgentState.INFERRING, AgentState.IDLE])
def test_the_lease_of_an_engine_that_is_up_runs_from_its_last_answer(state: AgentState) -> None:
    worker = worker_of(a_snapshot(state=state, answered_at=NOW - 4), POOL, NOW, LEASE_S)

    assert worker.lease_until == NOW - 4 + LEASE_S


def test_an_engine_that_has_been_silent_for_the_lease_is_dead() -> None:
    worker = worker_of(a_snapshot(answered_at=NOW - LEASE_S), POOL, NOW, LEASE_S)

    assert not worker.is_alive(NOW)


@pytest.mark.parametrize("state", [AgentState.LOADING, AgentState.DOWNLOADING, AgentState.DEGRADED])
def test_while_an_engine_is_brought_up_its_agents_word_counts(state: AgentState) -> None:
    worker = worker_of(a_snapshot(state=state, answered_at=0.0), POOL, NOW, LEASE_S)

    assert worker.lease_until == NOW + LEASE_S


@pytest.mark.parametrize(("startup_s", "patience_s"), [(5.0, 120.0), (300.0, 1200.0)])
def test_who_says_that_starts_are_long_is_waited_for_longer(
    startup_s: float, patience_s: float, tmp_path: Path
) -> None:
    pool = replace(POOL, startup_s=startup_s)
    setup = WorkerSetup("fast-1", pool, (), {}, (), tmp_path, tmp_path)

    assert setup.agent_config().worker.ready_timeout_s == patience_s
