"""A pool whose last worker goes."""

from __future__ import annotations

from typing import Any

from synapse.application.windows import BronzeWindows
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool


class Going:
    """Windows of a pool whose last worker goes after so many looks."""

    def __init__(self, windows: BronzeWindows, looks: int) -> None:
        self._windows, self._looks = windows, looks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._windows, name)

    async def slots(self, spec: ModelSpec, pool: Pool) -> int:
        self._looks -= 1
        return await self._windows.slots(spec, pool) if self._looks >= 0 else 0
