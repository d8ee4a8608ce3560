"""Runners called to try an engine behind them, or to be kept warm."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from synapse.adapters.aws.runners import RunnerEngine, RunnerEnvironments
from synapse.adapters.probe_events import Probe, is_probe, probe_from_event
from synapse.domain.errors import EngineError, EngineUnavailable, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId
from synapse.domain.pool import IN_RUNNER, Pool
from synapse.ports import InferenceRequest
from tests.aws import NO_RETRIES, Call, intercepted
from tests.factories import a_model, a_pool
from tests.fakes import ScriptedEngine
from tests.integration.aws.faults import client_error, failing
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from mypy_boto3_lambda.client import LambdaClient

MODEL = a_model("echo")
REQUEST = InferenceRequest(JobId("ping"), 5.0, ModelInput("ping", parameters={"max_tokens": 1}))
FIXED = a_pool("primary")
IN_FUNCTION = a_pool("cpu", endpoint=IN_RUNNER)
PLACED = replace(a_pool("gpu-ecs", endpoint=""), endpoint="10.0.0.7:8001", worker="w-1")


@pytest.fixture
def functions() -> LambdaClient:
    return boto3.client("lambda", config=NO_RETRIES)


@contextmanager
def answering(client: Any, answer: Callable[[dict[str, Any]], Any], **more: Any) -> Iterator[None]:
    """Every invocation is answered with what `answer` makes of its event."""

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        assert operation == "Invoke"
        body = json.dumps(answer(json.loads(arguments["Payload"]))).encode()
        return {"Payload": io.BytesIO(body), **more}

    with intercepted(client, around):
        yield


def noting(events: list[dict[str, Any]]) -> Callable[[dict[str, Any]], Any]:
    def note(event: dict[str, Any]) -> dict[str, Any]:
        events.append(event)
        return {}

    return note


async def asked(engine: RunnerEngine, pool: Pool) -> Any:
    [(_, outcome)] = [each async for each in engine.infer(MODEL, pool, [REQUEST])]
    return outcome


async def test_a_fixed_pool_is_asked_directly(functions: LambdaClient) -> None:
    direct = ScriptedEngine()

    with failing(functions, AssertionError("invoked")):
        outcome = await asked(RunnerEngine(functions, direct), FIXED)

    assert not isinstance(outcome, EngineError)
    assert [pool for _, pool, _ in direct.calls] == [FIXED]


@pytest.mark.parametrize("pool", [IN_FUNCTION, PLACED], ids=lambda pool: pool.name)
async def test_other_pools_are_asked_through_their_runner(
    functions: LambdaClient, pool: Pool
) -> None:
    events: list[dict[str, Any]] = []

    with answering(functions, noting(events)):
        outcome = await asked(RunnerEngine(functions, ScriptedEngine()), pool)

    (event,) = events
    assert is_probe(event)
    assert probe_from_event(event) == Probe(
        "echo", pool.name, pool.endpoint, pool.worker, 5.0, REQUEST.input
    )
    assert not isinstance(outcome, EngineError)


async def test_a_runner_asks_the_worker_that_the_probe_names(functions: LambdaClient) -> None:
    engine, events = ScriptedEngine(), list[dict[str, Any]]()
    with answering(functions, noting(events)):
        await asked(RunnerEngine(functions, ScriptedEngine()), PLACED)
    probe = probe_from_event(events[0])
    assert probe is not None

    answer = await probe.run(engine, MODEL, a_pool("gpu-ecs", endpoint=""))

    [(_, pool, _)] = engine.calls
    assert (pool.endpoint, pool.worker) == ("10.0.0.7:8001", "w-1")
    assert answer == {}


async def test_a_runner_with_its_own_engine_asks_that_one() -> None:
    engine = ScriptedEngine()
    own = Pool("cpu", "cpu", endpoint="127.0.0.1:8001")

    await Probe("echo", "cpu", IN_RUNNER, "", 5.0, REQUEST.input).run(engine, MODEL, own)

    assert [pool for _, pool, _ in engine.calls] == [own]


async def test_an_engine_that_fails_is_told_of(functions: LambdaClient) -> None:
    failing_engine = ScriptedEngine(lambda request: EngineUnavailable("it is down"))
    probe = Probe("echo", "cpu", IN_RUNNER, "", 5.0, REQUEST.input)
    answer = await probe.run(failing_engine, MODEL, FIXED)

    with answering(functions, lambda event: answer):
        outcome = await asked(RunnerEngine(functions, ScriptedEngine()), IN_FUNCTION)

    assert isinstance(outcome, EngineUnavailable)
    assert outcome.message == "it is down"


async def test_a_runner_that_fails_or_has_no_room_is_no_healthy_worker(
    functions: LambdaClient,
) -> None:
    engine = RunnerEngine(functions, ScriptedEngine())
    crash = answering(functions, lambda event: {"errorType": "KeyError"}, FunctionError="Unhandled")

    with crash:
        crashed = await asked(engine, IN_FUNCTION)
    with failing(functions, client_error("TooManyRequestsException", "Invoke", 429)):
        full = await asked(engine, IN_FUNCTION)
    with failing(functions, client_error("AccessDeniedException", "Invoke", 403)):
        forbidden = await asked(engine, IN_FUNCTION)

    assert isinstance(crashed, EngineUnavailable)
    assert "KeyError" in crashed.message
    assert isinstance(full, EngineUnavailable)
    assert isinstance(forbidden, EngineUnavailable), "the other pools are still to be pinged"


async def test_so_many_environments_are_called_at_once(functions: LambdaClient) -> None:
    # Each waits for the others: called one by one, they would wait in vain.
    all_there = threading.Barrier(3)

    class Held:
        def read(self) -> bytes:
            return b"{}"

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        assert json.loads(arguments["Payload"]) == {"probe": {}}
        all_there.wait(timeout=PATIENCE_S)
        return {"Payload": Held()}

    with intercepted(functions, around):
        assert await RunnerEnvironments(functions).keep_warm(IN_FUNCTION, 3) == 3


async def test_environments_that_did_not_answer_are_not_counted(functions: LambdaClient) -> None:
    full = client_error("TooManyRequestsException", "Invoke", 429)
    environments = RunnerEnvironments(functions)

    with answering(functions, lambda event: {}), failing(functions, full):
        assert await environments.keep_warm(IN_FUNCTION, 3) == 2
    with failing(functions, full, full), pytest.raises(Unavailable):
        await environments.keep_warm(IN_FUNCTION, 2)
