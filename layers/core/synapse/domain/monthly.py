"""What a month of traffic would cost here, and on what one would build instead.

Arrivals of a day go to pools as the autoscaler has it (`domain.load`), which also says how many
workers they keep; from none and back each is reckoned by `domain.cost`. An estimate: no bursts
beyond what `domain.staffing` leaves room for, no prefix caches, no lack of capacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from synapse.domain import cost, reference
from synapse.domain.cost import Bill, MachineHours
from synapse.domain.day import STEPS, Traffic
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS, PoolView
from synapse.domain.scaling import ScalingPolicy
from synapse.domain.sizing import worker_s_per_item
from synapse.domain.staffing import MOST_USE, workers_for

HOURS = 730.0
"""Of a month."""

KEEP_S = 300.0
"""E: a Lambda environment that nobody asks for stays so long; AWS says nothing."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model to be served: what is known of it on each pool, and on a function of its own.

    `lambda_s` is what an item takes there, None where that is not known.
    """

    name: str
    sites: Sequence[tuple[Pool, Profile]]
    lambda_s: float | None = None
    lambda_start_s: float = 8.0
    lambda_gb: float = 10.0

    def views(self) -> list[PoolView]:
        """Its pools, at zero."""
        return [
            PoolView(pool, slots=max(reference.SLOTS, profile.best_batch), ready=0, profile=profile)
            for pool, profile in self.sites
        ]


@dataclass(frozen=True, slots=True)
class Month:
    """A design's month: dollars by service, and what its callers have of it.

    `hours` are those of machines, `cold` the share of requests that wait for a start. An item
    alone takes `item_ms` there at the 99th percentile, or at the median where that is all that is
    known.
    """

    design: str
    services: Bill
    machines: Mapping[str, float]
    hours: MachineHours
    cold: float
    item_ms: float

    @property
    def usd(self) -> float:
        """All of it."""
        return self.services.usd + sum(self.machines.values())

    def keeps(self, tier: SlaTier) -> bool:
        """Whether an item that finds everything up and free is answered as the tier promises."""
        return self.item_ms <= TIER_P99_MS[tier]


def synapse(model: Model, traffic: Traffic) -> Month:
    """What this system would cost, with pools that go down to nothing.

    Raises:
        ValueError: no pool may have a worker, or all of them not as many as are needed.
    """
    services, hours = cost.housekeeping(HOURS * 3600), dict[str, MachineHours]()
    cold = 0.0
    for per_s in traffic.rates():
        seconds = HOURS * 3600 / STEPS
        for pool, profile, busy, workers in _standing(model, traffic.tier, per_s):
            mine_s = busy / _work_s(pool, profile)
            found = cost.cycle(mine_s, pool.idle_after_s, pool.startup_s)
            is_one = workers == 1
            up = workers * (found.up if is_one else 1.0)
            starting = found.starting if is_one else 0.0
            each = MachineHours(busy, starting, max(0.0, up - starting - busy))
            waits_s = _cold_wait_s(mine_s, pool.startup_s) * found.cold if is_one else 0.0
            cold += found.cold * mine_s * seconds if is_one else 0.0
            hours[pool.name] = hours.get(pool.name, MachineHours()) + each.times(seconds / 3600)
            each_request = _request(traffic.tier, profile.alone_ms(0, 0) / 1000 + waits_s)
            services += each_request.times(mine_s * seconds)
    used = [(pool, profile) for pool, profile in model.sites if pool.name in hours]
    return Month(
        "Synapse, " + " + ".join(hours),
        services,
        _sum([hours[pool.name].usd(pool.price_per_hour_usd) for pool, _ in used]),
        sum(hours.values(), MachineHours()),
        cold / (traffic.per_day * HOURS / 24),
        max(profile.p99_ms(0, 0, 1) for _, profile in used),
    )


def synapse_on_lambda(model: Model, traffic: Traffic) -> Month | None:
    """What this system would cost with a pool of Lambda functions, which bill by use."""
    month = naive(model, traffic)
    if month is None:
        return None
    # The caller's own function waits meanwhile; the one that answers is called without the API.
    number = traffic.per_day * HOURS / 24
    waits_s = month.item_ms / 1000 + month.cold * model.lambda_start_s
    services = replace(month.services, gateway=0.0) + _request(traffic.tier, waits_s).times(number)
    services += cost.housekeeping(HOURS * 3600)
    return replace(month, design="Synapse, cpu on Lambda", services=services)


def naive(model: Model, traffic: Traffic) -> Month | None:
    """A function that has the model in itself; None if its time there is not known."""
    if model.lambda_s is None:
        return None
    services, cold = Bill(), 0.0
    for per_s in traffic.rates():
        number = per_s * HOURS * 3600 / STEPS
        share = cost.cycle(per_s, KEEP_S, model.lambda_start_s).cold
        busy_s = model.lambda_s + share * model.lambda_start_s
        services += cost.lambda_run(busy_s, model.lambda_gb).times(number)
        cold += share * number
    total = traffic.per_day * HOURS / 24
    item_ms = model.lambda_s * 1000
    return Month("naive Lambda", services, {}, MachineHours(), cold / total, item_ms)


def provisioned(model: Model, traffic: Traffic) -> Month | None:
    """The same with as many environments provisioned as the peak needs."""
    if model.lambda_s is None:
        return None
    environments = math.ceil(workers_for(max(traffic.rates()) * model.lambda_s, 1, 1))
    runs = cost.provisioned_run(model.lambda_s, model.lambda_gb)
    services = runs.times(traffic.per_day * HOURS / 24)
    services += cost.provisioned(environments, HOURS * 3600, model.lambda_gb)
    name = f"provisioned Lambda × {environments}"
    return Month(name, services, {}, MachineHours(), 0.0, model.lambda_s * 1000)


def always_on(model: Model, traffic: Traffic) -> Month:
    """An endpoint with as many machines as the peak keeps 70 % busy, day and night.

    Of the kind that is the cheapest for it of those that keep the promise, or of all where none
    does. Nothing is counted around the machines.
    """
    found = [_always_on(pool, profile, traffic) for pool, profile in model.sites]
    return min(found, key=lambda month: (not month.keeps(traffic.tier), month.usd))


def _always_on(pool: Pool, profile: Profile, traffic: Traffic) -> Month:
    rates, work_s = traffic.rates(), _work_s(pool, profile)
    machines = math.ceil(max(rates) * work_s / MOST_USE)
    working = sum(rates) / STEPS * work_s * HOURS
    hours = MachineHours(working, 0.0, machines * HOURS - working)
    name = f"always-on {pool.accelerator} × {machines}"
    usd = hours.usd(pool.price_per_hour_usd)
    return Month(name, Bill(), usd, hours, 0.0, profile.p99_ms(0, 0, 1))


def months(model: Model, traffic: Traffic) -> list[Month]:
    """All designs that are possible, ours first."""
    others = [
        synapse_on_lambda(model, traffic),
        naive(model, traffic),
        provisioned(model, traffic),
        always_on(model, traffic),
    ]
    return [synapse(model, traffic), *(month for month in others if month is not None)]


def published(name: str, most: int = 20, idle_after_s: float = 300.0) -> Model:
    """A model of `domain.reference`, on each kind of machine that its speed is published for.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in reference.TIMES:
        known = ", ".join(reference.TIMES)
        raise ValueError(f"the speed of model {name!r} is not published; known are {known}")
    times = reference.TIMES[name]
    return timed(
        name,
        {accelerator: each.p50_s for accelerator, each in times.items()},
        {accelerator: each.p99_s / each.p50_s for accelerator, each in times.items()},
        most=most,
        idle_after_s=idle_after_s,
        lambda_gb=reference.LAMBDA_GB[name],
    )


def timed(
    name: str,
    item_s: Mapping[str, float],
    spread: Mapping[str, float],
    *,
    most: int = 20,
    idle_after_s: float = 300.0,
    lambda_gb: float = 10.0,
) -> Model:
    """A model of which it is known, by accelerator, how long an item takes, and p99 ÷ median.

    Raises:
        ValueError: there is no such accelerator, or the time is none.
    """
    sites = []
    for accelerator, seconds in item_s.items():
        if accelerator not in reference.INSTANCE:
            known = ", ".join(reference.INSTANCE)
            raise ValueError(f"there is no accelerator {accelerator!r}; known are {known}")
        if not 0 < seconds < math.inf:
            raise ValueError(f"an item must take more than 0 ms on {accelerator}")
        pool = reference.pool(accelerator, most=most, idle_after_s=idle_after_s)
        profile = reference.profile(name, pool, seconds, spread.get(accelerator, 1.0))
        sites.append((pool, profile))
    return Model(name, sites, item_s.get("cpu"), reference.LAMBDA_START.p50_s, lambda_gb=lambda_gb)


def _standing(model: Model, tier: SlaTier, per_s: float) -> list[tuple[Pool, Profile, float, int]]:
    """Pools that the arrivals fall to: how many workers they keep busy, and how many there are."""
    if per_s == 0:
        return []
    demand = ModelDemand(model.name, {tier: TierDemand(arrivals_per_s=per_s)})
    loads = spread_demand([demand], {model.name: model.views()})
    if not any(load.busy for load in loads.values()):
        raise ValueError(f"no pool of model {model.name!r} may have a worker")
    found = []
    for pool, profile in model.sites:
        load = loads[pool.name]
        busy, needed = sum(load.busy.values()), load.steady() - ScalingPolicy().tolerance
        workers = max(1, math.ceil(needed))
        if workers > pool.max_workers:
            raise ValueError(
                f"{per_s:,.1f} requests a second need more workers than there may be: "
                f"{workers:,} in pool {pool.name!r}, of which {pool.max_workers} are allowed"
            )
        if busy > 0:
            found.append((pool, profile, busy, workers))
    return found


def _work_s(pool: Pool, profile: Profile) -> float:
    each_s = worker_s_per_item(PoolView(pool, 1, 0, profile=profile), 0, 0)
    assert each_s is not None, "a profile tells"
    return each_s


def _cold_wait_s(per_s: float, start_s: float) -> float:
    """What who comes to a worker that is not up waits on the average: the first one all of it."""
    return start_s * (1 + per_s * start_s / 2) / (1 + per_s * start_s)


def _request(tier: SlaTier, held_s: float) -> Bill:
    """A request on the line; in bronze a job, in a batch of its own."""
    if tier is SlaTier.BRONZE:
        return cost.job() + cost.batch()
    return cost.call() + cost.held(held_s)


def _sum(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {what: sum(each[what] for each in costs) for what in ("active", "starting", "idle")}
