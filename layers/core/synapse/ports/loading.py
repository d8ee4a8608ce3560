"""How models get to workers that are up and have not loaded them."""

from __future__ import annotations

from typing import Protocol

from synapse.domain.pool import Pool


class ModelLoader(Protocol):
    """Reaches the workers of pools that load models on demand."""

    def ask(self, pool: Pool, model: str) -> None:
        """Have one of the pool's workers load the model, in its own time.

        Often called for one and the same. Never blocks, never raises.
        """
        ...
