"""What a run came to: how requests fared by tier, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.simulator.bill import Meter
from bench.simulator.pools import Usage
from bench.simulator.requests import End, Request
from synapse.domain.cost import Bill, MachineHours
from synapse.domain.job import SlaTier
from synapse.domain.routing import TIER_P99_MS

BRONZE_S = 300.0
"""What is counted as kept for bronze: the time in which its backlog is to be gone."""


def promise_s(tier: SlaTier) -> float:
    """In what time an answer of the tier has to be there."""
    return BRONZE_S if tier is SlaTier.BRONZE else TIER_P99_MS[tier] / 1000


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, by nearest rank; not a number where there are none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


@dataclass(frozen=True, slots=True)
class TierReport:
    """Of the requests of a tier: how many, what became of them, and their times.

    `kept` is the share that was delivered within the tier's promise. Times are from the API to the
    answer, `front` ones from the caller's side, with API Gateway and the function's invocation.
    """

    requests: int
    delivered: int
    refused: int
    expired: int
    kept: float
    p50_ms: float
    p99_ms: float
    front_p50_ms: float
    front_p99_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run as a whole."""

    name: str
    tiers: Mapping[SlaTier, TierReport]
    pools: Mapping[str, Usage]
    services: Bill
    done: Mapping[str, int]
    """How often what was done for jobs (`bill.Meter`); nothing where that is not told."""

    @property
    def machines_usd(self) -> float:
        """What all machines cost."""
        return sum(usage.usd for usage in self.pools.values())

    @property
    def requests(self) -> int:
        """Of all tiers."""
        return sum(tier.requests for tier in self.tiers.values())

    @property
    def kept(self) -> float:
        """The share of gold and silver whose promise was kept."""
        better = [self.tiers[tier] for tier in (SlaTier.GOLD, SlaTier.SILVER) if tier in self.tiers]
        asked = sum(tier.requests for tier in better)
        return sum(tier.kept * tier.requests for tier in better) / asked if asked else math.nan

    @property
    def hours(self) -> MachineHours:
        """Of all machines, by what they did."""
        return sum((usage.hours for usage in self.pools.values()), MachineHours())

    @property
    def usd(self) -> Mapping[str, float]:
        """Everything it cost, by service; of machines by what they did."""
        each = [usage.usd / usage.paid_s * 3600 for usage in self.pools.values() if usage.paid_s]
        hours = [usage.hours for usage in self.pools.values() if usage.paid_s]
        machines = [of.usd(price) for of, price in zip(hours, each, strict=True)]
        return {
            **asdict(self.services),
            **{what: sum(of[what] for of in machines) for what in ("active", "starting", "idle")},
        }

    @property
    def usd_per_1k(self) -> float:
        """Dollars for a thousand requests that were delivered; infinite if none was."""
        delivered = sum(tier.delivered for tier in self.tiers.values())
        return sum(self.usd.values()) * 1000 / delivered if delivered else math.inf

    @property
    def use(self) -> float:
        """The share of the time paid for in which machines worked."""
        paid_s = sum(usage.paid_s for usage in self.pools.values())
        return sum(usage.busy_s for usage in self.pools.values()) / paid_s if paid_s else 0.0

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "name": self.name,
            "machines_usd": self.machines_usd,
            "services_usd": self.services.usd,
            "kept": self.kept,
            "use": self.use,
            "use_when_up": self.hours.use,
            "usd_per_1k": self.usd_per_1k,
            "tiers": {tier.value: asdict(report) for tier, report in self.tiers.items()},
            "pools": {name: asdict(usage) for name, usage in self.pools.items()},
            "services": asdict(self.services),
            **({"done": dict(self.done)} if self.done else {}),
        }


def tier_report(tier: SlaTier, requests: Sequence[Request]) -> TierReport:
    """Of these requests, all of one tier and all ended."""
    delivered = [request for request in requests if request.end is End.DELIVERED]
    took = sorted(request.took_s for request in delivered)
    front = sorted(request.took_s + request.front_s for request in delivered)
    kept = sum(each <= promise_s(tier) for each in took)
    return TierReport(
        len(requests),
        len(delivered),
        sum(request.end is End.REFUSED for request in requests),
        sum(request.end is End.EXPIRED for request in requests),
        kept / len(requests) if requests else math.nan,
        quantile(took, 0.5) * 1000,
        quantile(took, 0.99) * 1000,
        quantile(front, 0.5) * 1000,
        quantile(front, 0.99) * 1000,
    )


def report_of(
    name: str, requests: Sequence[Request], usage: Mapping[str, Usage], meter: Meter
) -> Report:
    """Of a run that is over.

    Raises:
        AssertionError: a request has not ended.
    """
    open_ones = [request.number for request in requests if request.end is None]
    assert not open_ones, f"{name}: {len(open_ones)} requests have not ended: {open_ones[:5]}"
    return Report(
        name,
        {
            tier: tier_report(tier, mine)
            for tier in SlaTier
            if (mine := [request for request in requests if request.tier is tier])
        },
        usage,
        meter.bill,
        meter.done,
    )
