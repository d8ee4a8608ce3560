"""The engine as the fleet uses it: every call is watched, and what it shows is remembered.

A call that was placed (`application.placement`) tells the breakers of its worker and its pool how
it went, and the pool's latencies how long it took. One that hears nothing for much too long counts
as failed while it still runs, again each time that as much time has passed; once the worker's
breaker has opened it is broken off, so that whoever waits for it can turn to another worker.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from synapse.application.call import Calls
from synapse.application.patience import Size
from synapse.domain.errors import EngineError, EngineLost, EngineUnavailable
from synapse.domain.inference import Delta, Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest, StreamingEngine


class FleetEngine(StreamingEngine):
    """A StreamingEngine around another one; `pool` is always one that was placed."""

    def __init__(self, engine: StreamingEngine, calls: Calls) -> None:
        self._engine = engine
        self.calls = calls

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port; what is broken off ends as EngineLost, or EngineUnavailable."""
        if not requests:
            return
        call = await self.calls.begin(model, pool, Size.of(model, requests), streams=False)
        left = {request.id for request in requests}
        outcomes = self._engine.infer(model, pool, requests)
        try:
            async with aclosing(outcomes):
                while left:
                    job_id, outcome = await call.wait_for(outcomes.__anext__)
                    left.discard(job_id)
                    call.note(outcome)
                    yield job_id, outcome
        except StopAsyncIteration:
            pass
        except (EngineLost, EngineUnavailable) as error:
            call.note(error)
            for job_id in left:
                yield job_id, error
        finally:
            call.end()

    async def answer(self, model: ModelSpec, pool: Pool, request: InferenceRequest) -> Result:
        """See the port; what is broken off ends with EngineLost, or EngineUnavailable."""
        call = await self.calls.begin(model, pool, Size.of(model, [request]), streams=False)
        try:
            result = await call.wait_for(lambda: self._engine.answer(model, pool, request))
            call.note(result)
            return result
        except EngineError as error:
            call.note(error)
            raise
        finally:
            call.end()

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """See the port; what is broken off ends with EngineLost, or EngineUnavailable."""
        call = await self.calls.begin(model, pool, Size.of(model, [request]), streams=True)
        deltas = self._engine.stream(model, pool, request)
        try:
            async with aclosing(deltas):
                while True:
                    delta = await call.wait_for(deltas.__anext__)
                    call.note_delta(delta)
                    yield delta
        except StopAsyncIteration:
            pass
        except EngineError as error:
            call.note(error)
            raise
        finally:
            call.end()

    def break_off(self, worker: str, why: str, *, is_lost: bool = True) -> int:
        """Break off what runs on a worker; returns how many calls.

        It is lost with one that is known to be dead, which may have died of it; one that is taken
        away in good health leaves it as if nobody had begun it.
        """
        return self.calls.break_off(worker, why, is_lost=is_lost)
