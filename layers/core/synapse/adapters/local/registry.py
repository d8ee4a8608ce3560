"""What one machine serves, and how it is doing."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from synapse.adapters.local.database import Database
from synapse.domain.errors import Unavailable
from synapse.domain.estimate import ServiceRate
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool

logger = logging.getLogger(__name__)

RATE_MINUTES = 5


class LocalRegistry:
    """A catalogue and pools given at start; measurements in memory.

    The rates are written down by `save`, so that waits can be estimated right after a restart.
    """

    def __init__(
        self,
        models: Sequence[ModelSpec],
        pools: Mapping[str, Sequence[Pool]],
        database: Database,
    ) -> None:
        """Serve `models`, each on its `pools` (by model name, first choice first)."""
        self._models = {model.name: model for model in sorted(models, key=lambda m: m.name)}
        self._pools = {name: tuple(choice) for name, choice in pools.items()}
        self._database = database
        # Of each model and pool the last minutes with any work in them: (minute, what was
        # measured). No pool's name stands for all of them together.
        self._minutes: defaultdict[tuple[str, str], deque[tuple[int, ServiceRate]]] = defaultdict(
            lambda: deque(maxlen=RATE_MINUTES)
        )
        self._health: dict[tuple[str, str], WorkerHealth] = {}

    async def models(self) -> Sequence[ModelSpec]:
        """All served models, by name."""
        return list(self._models.values())

    async def model(self, name: str) -> ModelSpec | None:
        """The model of that name, or None."""
        return self._models.get(name)

    async def pools(self, model: str) -> Sequence[Pool]:
        """The pools that serve a model: the first choice, then the fallbacks in order."""
        return self._pools.get(model, ()) if model in self._models else ()

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        """Add to what was measured of a model's speed."""
        if sample.model in self._models:
            for pool in (sample.pool, ""):
                _add(self._minutes[sample.model, pool], sample, int(now // 60))

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        """What was measured of a model lately (the last few minutes with any work in them)."""
        minutes = self._minutes.get((model, pool), ())
        worked = [rate for minute, rate in minutes if minute != 0]
        rates = worked or [rate for _, rate in minutes]
        items, busy_s = sum(rate.items for rate in rates), sum(rate.busy_s for rate in rates)
        return ServiceRate(items, busy_s, is_guess=bool(rates) and not worked)

    async def record_health(self, health: WorkerHealth) -> None:
        """Remember what the pinger saw."""
        self._health[health.model, health.pool] = health

    async def health(self) -> Sequence[WorkerHealth]:
        """The last that was seen of every (model, pool)."""
        return [self._health[key] for key in sorted(self._health)]

    async def load(self) -> None:
        """Start from the rates that the last process saved."""
        for model, pool, items, busy_s in await self._database.read(_select_rates):
            if model in self._models and not self._minutes[model, pool]:
                self._minutes[model, pool].append((-1, ServiceRate(items, busy_s)))

    async def save(self, now: float) -> None:
        """Write the rates down; call it now and then. A failure is logged: it loses an estimate."""
        rates = {key: await self.service_rate(key[0], now, key[1]) for key in self._minutes}
        rows = [
            (*key, rate.items, rate.busy_s)
            for key, rate in rates.items()
            if rate.items and not rate.is_guess
        ]

        def replace(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO service_rates VALUES (?,?,?,?)", rows)

        try:
            if rows:
                await self._database.write(replace)
        except Unavailable as error:
            logger.warning("service rates not saved: %s", error.message)


def _select_rates(connection: sqlite3.Connection) -> list[tuple[str, str, int, float]]:
    return connection.execute("SELECT model, pool, items, busy_s FROM service_rates").fetchall()


def _add(minutes: deque[tuple[int, ServiceRate]], sample: ServiceSample, minute: int) -> None:
    so_far = ServiceRate(0, 0.0)
    if minutes and minutes[-1][0] == minute:
        so_far = minutes.pop()[1]
    rate = ServiceRate(so_far.items + sample.items, so_far.busy_s + sample.busy_s)
    minutes.append((minute, rate))
