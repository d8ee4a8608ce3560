"""Runner functions called for their own sake: to try an engine behind them, to keep them warm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.probe_events import awake_event, outcome_of, probe_to_event
from synapse.domain.errors import EngineError, EngineUnavailable, Unavailable
from synapse.domain.inference import Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceEngine, InferenceRequest

if TYPE_CHECKING:
    from mypy_boto3_lambda.client import LambdaClient

NO_ROOM = frozenset({"TooManyRequestsException", "ResourceNotFoundException"})


class RunnerEngine(InferenceEngine):
    """An engine for who may not be able to reach a worker: asked through the pool's runner.

    Fixed pools are asked directly, unless their engine is in the runner. Only for pings: what is
    asked for is answered with an empty text.
    """

    def __init__(self, functions: LambdaClient, direct: InferenceEngine) -> None:
        self._functions = functions
        self._direct = direct

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port."""
        if pool.is_fixed and not pool.runs_in_runner:
            async with aclosing(self._direct.infer(model, pool, requests)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
            return
        for request in requests:
            yield request.id, await self._probe(model, pool, request)

    async def _probe(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> Result | EngineError:
        try:
            answer = await asyncio.wait_for(
                _answer(self._functions, pool, probe_to_event(model, pool, request)),
                request.timeout_s,
            )
        except Unavailable as error:
            return EngineUnavailable(error.message)
        except TimeoutError:
            return EngineUnavailable(f"the runner of pool {pool.name!r} did not answer in time")
        return outcome_of(answer)


class RunnerEnvironments:
    """The Environments of the AWS target."""

    def __init__(self, functions: LambdaClient) -> None:
        self._functions = functions

    async def keep_warm(self, pool: Pool, environments: int) -> int:
        """See the port. Called at the same time, each call meets an environment of its own."""
        calls = (_answer(self._functions, pool, awake_event()) for _ in range(environments))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(failed) == environments and failed:
            raise failed[0]
        return environments - len(failed)


async def _answer(functions: LambdaClient, pool: Pool, event: Mapping[str, Any]) -> dict[str, Any]:
    """What the pool's runner answers.

    Raises:
        Unavailable: it could not be called, has no room, or failed.
    """
    try:
        answer = await call(
            functions.invoke, FunctionName=pool.runner, Payload=json.dumps(event).encode()
        )
    except ClientError as error:
        # A right that is missing is this pool's trouble alone, and the others are still asked.
        why = "has no room" if error_code(error) in NO_ROOM else "cannot be called"
        raise Unavailable(f"the runner of pool {pool.name!r} {why}") from error
    body: dict[str, Any] = json.loads(await asyncio.to_thread(answer["Payload"].read))
    if answer.get("FunctionError"):
        raise Unavailable(f"the runner of pool {pool.name!r} failed ({body.get('errorType')})")
    return body
