"""A working usage store in memory."""

from __future__ import annotations

from collections.abc import Mapping

from synapse.domain.job import Job
from synapse.domain.usage import UsageKey, Used, used_by


class MemoryUsageStore:
    """Sums in a dict."""

    def __init__(self) -> None:
        self.sums: dict[UsageKey, Used] = {}

    async def add(self, key: UsageKey, used: Used) -> None:
        self.sums[key] = self.sums.get(key, Used()) + used

    async def used(self, tenant: str, first_day: str, last_day: str) -> Mapping[UsageKey, Used]:
        return {
            key: used
            for key, used in self.sums.items()
            if key.tenant == tenant and first_day <= key.day <= last_day
        }

    def count(self, ended: Job) -> None:
        """What a job store does with each job that ends."""
        key, used = used_by(ended)
        self.sums[key] = self.sums.get(key, Used()) + used
