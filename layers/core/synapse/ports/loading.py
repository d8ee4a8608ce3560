"""How models get to workers that are up and have not loaded them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from synapse.domain.loading import FailedLoad
from synapse.domain.pool import Pool


class ModelLoader(Protocol):
    """Reaches the workers of pools that load models on demand."""

    def ask(self, pool: Pool, model: str, keep: Collection[str] = ()) -> None:
        """Have one of the pool's workers that lacks the model load it, in its own time.

        Models to `keep` are not unloaded for that, busy or not. Often called for one and the
        same. Never blocks, never raises.
        """
        ...


class FailedLoads(Protocol):
    """Knows which models were tried in vain."""

    def failed(self, pool: str, model: str) -> FailedLoad | None:
        """Why the model cannot be loaded in the pool; None if it can, for all that is known.

        One failure is none yet, unless it is final: what is the matter may be over with the next
        try. Cheap, raises nothing.
        """
        ...
