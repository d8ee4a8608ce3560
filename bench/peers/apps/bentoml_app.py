"""BentoML: a batchable API for embeddings, a concurrent one over the LLM engine."""

from __future__ import annotations

from typing import Any

import bentoml
from engines import MAX_BATCH, load, load_one, processes, workload

TIMEOUT_S = 300


@bentoml.service(traffic={"timeout": TIMEOUT_S}, workers=processes())
class Batched:
    """BentoML's adaptive batching joins what waits; the wait it may cost is the default's bound."""

    def __init__(self) -> None:
        self.engine = load(processes())

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000, route="/run")
    def run(self, text: list[str]) -> list[Any]:
        """All of a batch."""
        return self.engine(text)


@bentoml.service(traffic={"timeout": TIMEOUT_S}, workers=processes())
class Concurrent:
    """One request a call, many calls at once: the engine batches by itself."""

    def __init__(self) -> None:
        self.one = load_one()

    @bentoml.api(route="/run")
    async def run(self, text: str) -> Any:
        """One request."""
        return await self.one(text)


Service = Batched if workload() == "embed" else Concurrent
