"""Connections: made when needed, reused, tried after a rest, few."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from synapse.adapters.triton import connection
from synapse.adapters.triton.connection import Connections, ConnectionSettings
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import EngineUnavailable
from synapse.domain.inference import Completion
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.factories import a_model, a_pool
from tests.patience import until
from tests.unit.triton.asking import ask, outcome
from tests.unit.triton.fake_triton import FakeTriton
from tests.unit.triton.wire import Wire


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause counts as a long rest."""
    monkeypatch.setattr(connection, "IDLE_PROBE_AFTER_S", 0.0)


async def test_one_connection_serves_all_calls(
    engine: TritonEngine,
    triton: FakeTriton,
    generator: ModelSpec,
    texts: ModelSpec,
    line: Wire,
    far_pool: Pool,
) -> None:
    models = [generator, texts] * 20

    found = await asyncio.gather(*(outcome(engine, m, far_pool, ask("hi")) for m in models))

    assert all(isinstance(each, Completion) for each in found)
    assert (line.connections, triton.probes) == (1, 0)


@pytest.mark.usefixtures("rested")
async def test_a_rested_connection_is_tried_before_it_is_used(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    await outcome(engine, texts, far_pool, ask("hi"))

    assert isinstance(await outcome(engine, texts, far_pool, ask("hi")), Completion)
    assert (line.connections, triton.probes) == (1, 1)


async def test_a_connection_on_which_a_call_was_lost_is_tried_before_it_is_used_again(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, generator: ModelSpec, pool: Pool
) -> None:
    for model in (texts, generator):
        await outcome(engine, model, pool, ask("!status UNAVAILABLE unhealthy engine"))
        before = triton.probes
        assert isinstance(await outcome(engine, model, pool, ask("hi")), Completion)
        assert isinstance(await outcome(engine, model, pool, ask("hi")), Completion)
        assert triton.probes == before + 1

    await outcome(engine, texts, pool, ask("!status INVALID_ARGUMENT it is odd"))
    await outcome(engine, texts, pool, ask("hi"))
    assert triton.probes == 2


async def test_all_who_wait_share_one_attempt_to_connect(
    texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    line.silent = True

    async with TritonEngine(ConnectionSettings(connect_timeout_s=0.3)) as engine:
        async with asyncio.timeout(10):
            asked = [outcome(engine, texts, far_pool, ask("hi")) for _ in range(40)]
            found = await asyncio.gather(*asked)

    assert {type(each) for each in found} == {EngineUnavailable}


async def test_closing_while_connecting_is_no_connection(
    generator: ModelSpec, texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    line.silent = True
    async with TritonEngine(ConnectionSettings(connect_timeout_s=1.0)) as engine:
        tasks = [
            asyncio.create_task(outcome(engine, model, far_pool, ask("hi")))
            for model in (generator, texts)
        ]
        await until(lambda: line.connections == 1)

    assert [type(await task) for task in tasks] == [EngineUnavailable] * 2


@pytest.mark.usefixtures("rested")
async def test_a_connection_that_died_silently_is_replaced_before_work_is_lost_on_it(
    texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    async with TritonEngine(ConnectionSettings(connect_timeout_s=1.0)) as engine:
        await outcome(engine, texts, far_pool, ask("hi"))
        line.freeze()

        assert isinstance(await outcome(engine, texts, far_pool, ask("hi")), Completion)
        assert line.connections == 2


async def test_a_worker_that_comes_back_is_found_within_a_second(
    engine: TritonEngine, texts: ModelSpec, sockets: Path
) -> None:
    pool = a_pool(endpoint=f"unix:{sockets}/late")
    assert isinstance(await outcome(engine, texts, pool, ask("hi")), EngineUnavailable)

    async with FakeTriton(pool.endpoint), asyncio.timeout(30):
        while not isinstance(await outcome(engine, texts, pool, ask("hi")), Completion):
            await asyncio.sleep(0.05)


async def test_old_addresses_are_forgotten_but_their_calls_may_finish(
    triton: FakeTriton, generator: ModelSpec, texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    request = ask("one two three", parameters={"behave": "!pause-after-two"})
    async with TritonEngine(ConnectionSettings(max_connections=1)) as engine:
        stream = engine.stream(generator, far_pool, request)
        said = [(await anext(stream)).text]

        quick = await outcome(engine, texts, a_pool(endpoint=triton.address), ask("hi"))

        assert isinstance(quick, Completion)
        assert line.open == 1
        said += [part.text async for part in stream]
        assert "".join(said) == "one two three "
        await until(lambda: line.open == 0)


async def test_closing_the_engine_cuts_off_forgotten_connections_too(
    triton: FakeTriton, generator: ModelSpec, texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    async with TritonEngine(ConnectionSettings(max_connections=1)) as engine:
        task = asyncio.create_task(outcome(engine, generator, far_pool, ask("!hang")))
        await until(lambda: triton.running == 1)
        await outcome(engine, texts, a_pool(endpoint=triton.address), ask("hi"))
        assert not task.done()

    assert isinstance(await task, EngineUnavailable)


async def test_a_connection_belongs_to_its_event_loop(triton: FakeTriton) -> None:
    connections = Connections(ConnectionSettings())
    here = connections.to(triton.address)

    def elsewhere() -> bool:
        async def differs() -> bool:
            there = connections.to(triton.address)
            await connections.aclose()
            return there is not here

        return asyncio.run(differs())

    assert connections.to(triton.address) is here
    assert await asyncio.to_thread(elsewhere)
    await here.close()


async def test_ready_and_live_are_what_triton_says(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    assert await engine.live(pool)
    assert await engine.ready(generator, pool)
    assert not await engine.ready(a_model("other"), pool)


async def test_no_answer_is_neither_ready_nor_live(
    engine: TritonEngine, generator: ModelSpec
) -> None:
    nowhere = a_pool(endpoint="unix:/nowhere/at-all")

    assert not await engine.live(nowhere)
    assert not await engine.ready(generator, nowhere)


def test_the_engine_needs_no_numpy_and_leaves_tritonclient_whole() -> None:
    program = (
        "import sys, synapse.adapters.triton.engine\n"
        "from synapse.adapters.triton.generated import messages\n"
        "assert 'numpy' not in sys.modules and 'tritonclient.grpc' not in sys.modules\n"
        "import tritonclient.grpc.aio\n"
        "assert tritonclient.grpc.service_pb2 is messages\n"
        "assert tritonclient.grpc.aio.InferenceServerClient\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_engine_uses_a_tritonclient_that_is_there_already() -> None:
    program = (
        "import tritonclient.grpc\n"
        "from synapse.adapters.triton.generated import messages\n"
        "assert tritonclient.grpc.service_pb2 is messages\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
