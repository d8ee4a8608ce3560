"""A pool whose last worker goes."""

from __future__ import annotations

from typing import Any

from synapse.application.windows import BronzeWindows
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.window import Opening


class Going:
    """Windows of a pool whose last worker goes after so many looks."""

    def __init__(self, windows: BronzeWindows, looks: int) -> None:
        self._windows, self._looks = windows, looks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._windows, name)

    async def opening(self, spec: ModelSpec, pool: Pool, items: int) -> Opening:
        self._looks -= 1
        opening = await self._windows.opening(spec, pool, items)
        return opening if self._looks >= 0 else opening._replace(slots=0)
