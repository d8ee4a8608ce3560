"""Engines with few slots in a real Triton: time, priorities, and faults on demand."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from synapse_worker.config import WorkerConfig
from synapse_worker.supervisor import Supervisor
from tests.integration.worker.calls import echo, llm_inputs, load_is
from tests.integration.worker.conftest import LLM, VENV

pytestmark = pytest.mark.asyncio(loop_scope="session")

DELAY_MS = 100
SLOTS = 2
CONTEXT = 2048


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults.json"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton(worker_state: Path, faults: Path) -> AsyncIterator[Supervisor]:
    config = WorkerConfig(
        models=(LLM, "echo"),
        venv=VENV,
        state_dir=worker_state,
        log_file=worker_state / "priority.log",
        model_parameters={
            "echo": {
                "delay_ms": str(DELAY_MS),
                "slots": str(SLOTS),
                "faults_file": str(faults),
            },
            LLM: {"slots": "1", "context_per_slot": str(CONTEXT)},
        },
    )
    async with Supervisor(config) as supervisor:
        yield supervisor


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(triton: Supervisor) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(triton.grpc_address) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_faults_are_left(faults: Path) -> None:
    faults.unlink(missing_ok=True)


async def took_s(client: InferenceServerClient, items: int = 1, **parameters: int) -> float:
    began_at = time.monotonic()
    assert await echo(client, [b"x"] * items, **parameters) == [b"x"] * items
    return time.monotonic() - began_at


async def test_items_take_their_time_in_slots_of_their_own(client: InferenceServerClient) -> None:
    took = [await took_s(client, SLOTS)]
    while min(took) >= SLOTS * DELAY_MS / 1000:
        assert len(took) < 50, "never side by side, however busy the machine was"
        took.append(await took_s(client, SLOTS))

    assert min(took) >= DELAY_MS / 1000
    assert await took_s(client, 2 * SLOTS) >= 2 * DELAY_MS / 1000


async def test_an_urgent_text_passes_those_that_wait(client: InferenceServerClient) -> None:
    bronze = asyncio.create_task(took_s(client, 20 * SLOTS, request_priority=1))
    await asyncio.sleep(DELAY_MS / 2000)

    await took_s(client, request_priority=-1)
    assert not bronze.done()
    await bronze


async def test_an_urgent_generation_passes_those_that_wait(
    client: InferenceServerClient, triton: Supervisor
) -> None:
    ends: list[str] = []

    async def run(name: str, priority: int, tokens: int) -> None:
        sampling = {"max_tokens": tokens, "ignore_eos": True}
        inputs = llm_inputs("Once", sampling, {"stream": True})

        async def requests() -> AsyncIterator[dict[str, object]]:
            parameters = {"request_priority": priority}
            yield {"model_name": LLM, "inputs": inputs, "parameters": parameters}

        async for _, error in client.stream_infer(requests()):
            assert error is None, error
        ends.append(name)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(run("first", 0, CONTEXT - 10))
        await load_is(triton, LLM, running=1, waiting=0)
        for number, (name, priority) in enumerate([("bronze", 1), ("silver", 0), ("gold", -1)]):
            group.create_task(run(name, priority, 4))
            await load_is(triton, LLM, running=1, waiting=number + 1)
        first.cancel()

    assert ends == ["gold", "silver", "bronze"]


async def test_faults_are_switched_on_and_off_while_it_runs(
    client: InferenceServerClient, faults: Path
) -> None:
    faults.write_text(json.dumps({"slow_factor": 5}))
    await asyncio.sleep(0.05)
    assert await took_s(client) >= 5 * DELAY_MS / 1000

    faults.write_text(json.dumps({"error": "out of memory"}))
    await asyncio.sleep(0.05)
    with pytest.raises(InferenceServerException, match="out of memory"):
        await took_s(client)

    faults.write_text(json.dumps({"hang": True}))
    await asyncio.sleep(0.05)
    hung = asyncio.create_task(took_s(client))
    await asyncio.sleep(3 * DELAY_MS / 1000)
    assert not hung.done()
    faults.unlink()
    assert await hung >= 3 * DELAY_MS / 1000
