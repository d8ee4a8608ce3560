"""An engine that finds a worker for each call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from synapse.application.fleet import Fleet
from synapse.domain.errors import EngineError, EngineUnavailable
from synapse.domain.inference import Delta, Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest, StreamingEngine


class PlacingEngine(StreamingEngine):
    """The fleet's engine for callers that name a pool and no worker."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port."""
        try:
            placed = await self._placed(model, pool)
        except EngineUnavailable as error:
            for request in requests:
                yield request.id, error
            return
        async with aclosing(self._fleet.engine.infer(model, placed, requests)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """See the port."""
        placed = await self._placed(model, pool)
        async with aclosing(self._fleet.engine.stream(model, placed, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def _placed(self, model: ModelSpec, pool: Pool) -> Pool:
        return pool if pool.endpoint else await self._fleet.placement.place(model, pool)
