"""Where the profiler writes what it measured, and the router reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.profile import Profile


class ProfileStore(Protocol):
    """The last profile of each (model, version, pool)."""

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        """What was measured last; None if nothing was. Cheap: asked for with every request.

        Raises:
            Unavailable: it could not be read, now or ever before.
        """
        ...

    async def profiles(self) -> Sequence[Profile]:
        """All of them, by model, version and pool."""
        ...

    async def keep(self, profile: Profile) -> None:
        """Write a profile down in the place of an older one.

        Raises:
            Unavailable: it could not be written.
        """
        ...
