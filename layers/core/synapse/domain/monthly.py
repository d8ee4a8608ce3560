"""What a month of traffic would cost here, and on what one would build instead.

Arrivals of a day go to pools as the autoscaler has it (`domain.load`), which also says how many
workers they keep; from none and back each is reckoned by `domain.from_zero`, what services bill by
`domain.cost`. An estimate: no bursts beyond what `domain.staffing` leaves room for, no prefix
caches, no lack of capacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from synapse.domain import cost, reference
from synapse.domain.cost import Bill, MachineHours
from synapse.domain.day import STEPS, Traffic
from synapse.domain.from_zero import cycle, opening
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.price_list import USD_HOUR
from synapse.domain.priced_model import Model
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS, PoolView
from synapse.domain.scaling import ScalingPolicy
from synapse.domain.sizing import worker_s_per_item
from synapse.domain.staffing import MOST_USE, workers_for

HOURS = cost.MONTH_S / 3600
"""Of a month."""

DAYS = HOURS / 24
QUARTER_S = 86_400 / STEPS

KEEP_S = 300.0
"""E: a Lambda environment that nobody asks for stays so long; AWS says nothing."""


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
    services, hours = cost.housekeeping(cost.MONTH_S), dict[str, MachineHours]()
    cold, rates = 0.0, traffic.rates()
    for step, per_s in enumerate(rates):
        begins, ends = rates[step - 1] == 0, rates[(step + 1) % STEPS] == 0
        for each in _standing(model, traffic.tier, per_s):
            found = _quarter(each, begins=begins, ends=ends)
            pool = each.pool.name
            hours[pool] = hours.get(pool, MachineHours()) + found.hours.times(DAYS)
            cold += found.cold * DAYS
            number = each.per_s * QUARTER_S
            services += _requests(model, traffic.tier, number, each.item_s, found.waits_s).times(
                DAYS
            )
    used = [(pool, profile) for pool, profile in model.sites if pool.name in hours]
    return Month(
        "Synapse, " + " + ".join(hours),
        services,
        _sum([hours[pool.name].usd(pool.price_per_hour_usd) for pool, _ in used]),
        sum(hours.values(), MachineHours()),
        cold / (traffic.per_day * DAYS),
        max(profile.p99_ms(0, 0, 1) for _, profile in used),
    )


@dataclass(frozen=True, slots=True)
class _Standing:
    """Arrivals that fall to a pool: how many workers they keep busy, and how many there are."""

    pool: Pool
    profile: Profile
    busy: float
    workers: int

    @property
    def work_s(self) -> float:
        """How long an item keeps a worker busy."""
        return _work_s(self.pool, self.profile)

    @property
    def per_s(self) -> float:
        """How many items a second."""
        return self.busy / self.work_s

    @property
    def item_s(self) -> float:
        """How long an item takes that is alone."""
        return self.profile.alone_ms(0, 0) / 1000


@dataclass(frozen=True, slots=True)
class _Quarter:
    """A quarter of an hour of a day: machine hours, requests that came to no worker, their wait."""

    hours: MachineHours
    cold: float
    waits_s: float


def _quarter(each: _Standing, *, begins: bool, ends: bool) -> _Quarter:
    """What it comes to, with what it adds that it follows, or is followed by, silence.

    A worker that would be up is away in the morning, and stays for its idle time in the evening. Of
    one that comes and goes all day long that is counted already, as far as it does.
    """
    pool, workers, number = each.pool, each.workers, each.per_s * QUARTER_S
    found = cycle(each.per_s, pool.idle_after_s, pool.startup_s)
    is_one = workers == 1
    up = found.up if is_one else 1.0
    starting_s = found.starting * QUARTER_S if is_one else 0.0
    cold = found.cold * number if is_one else 0.0
    waits_s = cold * _cold_wait_s(each.per_s, pool.startup_s)
    paid_s = workers * up * QUARTER_S
    if begins:
        morning = opening(each.per_s, pool.startup_s, each.work_s, workers)
        cold += up * min(morning.cold, number)
        waits_s += up * morning.held_s
        starting_s += up * workers * min(pool.startup_s, QUARTER_S)
    if ends:
        paid_s += up * workers * pool.idle_after_s
    busy_s = each.busy * QUARTER_S
    idle_s = max(0.0, paid_s - starting_s - busy_s)
    return _Quarter(MachineHours(busy_s, starting_s, idle_s).times(1 / 3600), cold, waits_s)


def synapse_on_lambda(model: Model, traffic: Traffic) -> Month | None:
    """What this system would cost with its pool of Lambda functions; None where that cannot be.

    That pool runs jobs alone: who asks on the line is answered by the others.
    """
    month = naive(model, traffic)
    if month is None or traffic.tier is not SlaTier.BRONZE:
        return None
    assert model.lambda_s is not None, "naive has it"
    # The worker is called by the batcher, without the API, and is its own runner.
    number = traffic.per_day * DAYS
    waits_s = month.cold * number * model.lambda_start_s
    services = replace(month.services, gateway=0.0) + cost.housekeeping(cost.MONTH_S)
    services += _requests(model, traffic.tier, number, model.lambda_s, waits_s, has_runner=False)
    return replace(month, design="Synapse, cpu on Lambda", services=services)


def naive(model: Model, traffic: Traffic) -> Month | None:
    """A function that has the model in itself; None if its time there is not known."""
    if model.lambda_s is None:
        return None
    services, cold = Bill(), 0.0
    for per_s in traffic.rates():
        number = per_s * QUARTER_S * DAYS
        share = cycle(per_s, KEEP_S, model.lambda_start_s).cold
        busy_s = model.lambda_s + share * model.lambda_start_s
        services += cost.lambda_run(busy_s, model.lambda_gb).times(number)
        cold += share * number
    total = traffic.per_day * DAYS
    item_ms = model.lambda_s * 1000
    return Month("naive Lambda", services, {}, MachineHours(), cold / total, item_ms)


def provisioned(model: Model, traffic: Traffic) -> Month | None:
    """The same with as many environments provisioned as the peak needs."""
    if model.lambda_s is None:
        return None
    environments = math.ceil(workers_for(max(traffic.rates()) * model.lambda_s, 1, 1))
    runs = cost.provisioned_run(model.lambda_s, model.lambda_gb)
    services = runs.times(traffic.per_day * DAYS)
    services += cost.provisioned(environments, cost.MONTH_S, model.lambda_gb)
    name = f"provisioned Lambda × {environments}"
    return Month(name, services, {}, MachineHours(), 0.0, model.lambda_s * 1000)


def always_on(model: Model, traffic: Traffic) -> Month:
    """An endpoint with as many machines as the peak keeps 70 % busy, day and night.

    Of the kind that is the cheapest for it of those that keep the promise, or of all where none
    does, at EC2's price. Nothing is counted around the machines.
    """
    sites = [*model.sites, *model.elsewhere]
    found = [_always_on(pool, profile, traffic) for pool, profile in sites]
    return min(found, key=lambda month: (not month.keeps(traffic.tier), month.usd))


def _always_on(pool: Pool, profile: Profile, traffic: Traffic) -> Month:
    rates, work_s = traffic.rates(), _work_s(pool, profile)
    machines = math.ceil(max(rates) * work_s / MOST_USE)
    working = sum(rates) / STEPS * work_s * HOURS
    hours = MachineHours(working, 0.0, machines * HOURS - working)
    name = f"always-on {pool.accelerator} × {machines}"
    usd = hours.usd(USD_HOUR[reference.INSTANCE[pool.accelerator]])
    return Month(name, Bill(), usd, hours, 0.0, profile.p99_ms(0, 0, 1))


def months(model: Model, traffic: Traffic) -> list[Month]:
    """All designs that are possible, ours first."""
    found = [
        synapse(model, traffic) if model.sites else None,
        synapse_on_lambda(model, traffic),
        naive(model, traffic),
        provisioned(model, traffic),
        always_on(model, traffic),
    ]
    return [month for month in found if month is not None]


def _standing(model: Model, tier: SlaTier, per_s: float) -> list[_Standing]:
    """The pools that the arrivals fall to."""
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
            found.append(_Standing(pool, profile, busy, workers))
    return found


def _work_s(pool: Pool, profile: Profile) -> float:
    slots = max(1, profile.best_batch)
    each_s = worker_s_per_item(PoolView(pool, slots, 0, profile=profile), 0, 0)
    assert each_s is not None, "a profile tells"
    return each_s


def _cold_wait_s(per_s: float, start_s: float) -> float:
    """What who comes to a worker that is not up waits on the average: the first one all of it."""
    return start_s * (1 + per_s * start_s / 2) / (1 + per_s * start_s)


def _requests(
    model: Model,
    tier: SlaTier,
    number: float,
    item_s: float,
    cold_s: float,
    *,
    has_runner: bool = True,
) -> Bill:
    """So many requests on the line, or in bronze jobs, each in a batch of its own.

    All of them together wait for a start for `cold_s`: in a function, where somebody waits.
    """
    if tier is not SlaTier.BRONZE:
        return cost.call().times(number) + cost.held(number * item_s + cold_s)
    waited_s = cost.JOB_WAY_S + item_s + cold_s / number if model.waits else 0.0
    each = cost.job(model.payload) + cost.batch(item_s, has_runner=has_runner)
    return (each + cost.fetched(model.payload, waited_s)).times(number)


def _sum(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {what: sum(each[what] for each in costs) for what in ("active", "starting", "idle")}
