"""How models get to workers that are up and have not loaded them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from synapse.domain.loading import FailedLoad
from synapse.domain.pool import Pool


class ModelLoader(Protocol):
    """Reaches the workers of pools that load models on demand."""

    def ask(
        self,
        worker: str,
        pool: Pool,
        model: str,
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> bool:
        """Have a worker of the pool load the model, in its own time; whether it begins to.

        It does not while it loads another one or somebody of the pool this one, nor so soon after
        a failure. Models to `keep` are not unloaded for it, busy or not; those `yielding` are
        even if they are busy, once what they were asked is answered. Never blocks, never raises.
        """
        ...

    def troubles(self) -> Mapping[tuple[str, str], str]:
        """Why loads failed, by pool and model, of those that were tried of late."""
        ...


class FailedLoads(Protocol):
    """Knows which models were tried in vain."""

    def failed(self, pool: str, model: str) -> FailedLoad | None:
        """Why the model cannot be loaded in the pool; None if it can, for all that is known.

        One failure is none yet, unless it is final: what is the matter may be over with the next
        try. Cheap, raises nothing.
        """
        ...
