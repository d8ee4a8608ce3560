"""An engine whose batches count as in flight, so that direct requests see them ahead."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from synapse.domain.errors import EngineError, Unavailable
from synapse.domain.inference import Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import Clock, Entry, InferenceEngine, InferenceRequest, InFlight

logger = logging.getLogger(__name__)

NO_LIMIT = sys.maxsize
"""Jobs are never refused: they have waited already."""


@dataclass(frozen=True, slots=True)
class CountedEngine(InferenceEngine):
    """Counts each batch as a whole for as long as it runs; a count that fails stops no batch."""

    engine: InferenceEngine
    in_flight: InFlight
    clock: Clock

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port."""
        entry = await self._enter(model, pool, requests)
        try:
            async with aclosing(self.engine.infer(model, pool, requests)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
        finally:
            if entry is not None:
                await self.in_flight.leave(entry)

    async def _enter(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> Entry | None:
        if not requests:
            return None
        items = sum(request.input.samples for request in requests)
        expires_at = self.clock() + max(request.timeout_s for request in requests)
        try:
            return await self.in_flight.enter(model.name, pool.name, items, NO_LIMIT, expires_at)
        except Unavailable as error:
            logger.warning("batch not counted: %s", error.message)
            return None
