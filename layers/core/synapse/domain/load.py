"""Which pool's workers the demand of each model falls to, and how many of them it keeps busy.

Demand goes where the router would send it if every pool had a worker up: what is cold must not
look dear for that alone, or nothing cheap would ever be started. A pool takes no more than its
workers can do at their most; the rest falls to the next pool. A worker serves all models of its
pool, so their loads add up, each in shares of a worker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.job import SlaTier
from synapse.domain.prediction import NOTHING_LIVE
from synapse.domain.routing import Need, PoolView, route
from synapse.domain.sizing import Crowd, crowd_of, unmixed, worker_s_per_item
from synapse.domain.staffing import MOST_USE, workers_for

FULL_USE = 0.95
"""The share that bronze may fill besides: it waits when there is a peak."""

DRAIN_S: Mapping[SlaTier, float] = {SlaTier.GOLD: 1.0, SlaTier.SILVER: 10.0, SlaTier.BRONZE: 300.0}
"""In what time of its tier a backlog is to be gone, where workers start as fast as that."""


@dataclass(frozen=True, slots=True)
class TierDemand:
    """What is asked of a model in one tier: items that wait, and new ones a second.

    `last_at` is when the last one came, None where none was seen; the tokens are what an item
    has on the average, 0 where that is not known.
    """

    queued: int = 0
    arrivals_per_s: float = 0.0
    last_at: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """What is asked of a model, over all pools, by those who require the same of its engines."""

    model: str
    tiers: Mapping[SlaTier, TierDemand]
    first_token_only: bool = False
    requires: Extensions = NO_EXTENSIONS


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What falls to a pool, all its models together.

    `busy` is how many workers the arrivals keep busy (Little's law), `backlog_s` how long one
    worker would need for what waits, by tier. `waiting` items have no worker yet, `in_flight`
    ones have. `is_unmeasured` says that some of it is of unknown size, `is_late` that answers
    miss their tier for the company they have. `crowds` are how much company the promises bear.
    """

    busy: Mapping[SlaTier, float] = field(default_factory=dict)
    backlog_s: Mapping[SlaTier, float] = field(default_factory=dict)
    waiting: float = 0.0
    in_flight: int = 0
    last_at: float | None = None
    is_unmeasured: bool = False
    is_late: bool = False
    crowds: frozenset[Crowd] = frozenset()

    @property
    def has_work(self) -> bool:
        """Whether anything of it is to be done right now."""
        return self.waiting > 0 or self.in_flight > 0

    def steady(self) -> float:
        """Workers for the arrivals alone: the better tiers leave room, bronze fills it.

        So much room as each promise needs that is to be kept in the pool.
        """
        better = sum(self.busy.get(tier, 0.0) for tier in (SlaTier.GOLD, SlaTier.SILVER))
        kept = max((workers_for(better, *crowd) for crowd in self.crowds), default=0.0)
        return max(kept, better / MOST_USE, sum(self.busy.values()) / FULL_USE)

    def draining(self, startup_s: float) -> float:
        """Workers that clear the backlog in time, each tier after those before it.

        Never sooner than a new worker could help: what those that are up clear meanwhile needs
        no others.
        """
        ahead_s, most = 0.0, 0.0
        for tier in SlaTier:
            ahead_s += self.backlog_s.get(tier, 0.0)
            most = max(most, ahead_s / max(DRAIN_S[tier], startup_s))
        return most

    def workers(self, startup_s: float) -> float:
        """How many workers all of it needs, in fractions.

        The room that is left for peaks is there for the backlog too: that is what a peak leaves.
        """
        return max(self.steady(), sum(self.busy.values()) + self.draining(startup_s))


def first_choice(need: Need, views: Sequence[PoolView]) -> PoolView | None:
    """The pool that workers are started in for a single request; None if none may have any."""
    return next((view for view, _ in _choice(need, views)), None)


def fits_some(demand: ModelDemand, views: Sequence[PoolView]) -> bool:
    """Whether each of its tiers finds a pool that would keep the promise with nothing to do."""
    idle = [_idle(view) for view in views]
    needs = [_need(tier, demand, of) for tier, of in demand.tiers.items() if _is_asked(of)]
    return all(any(each.fits for each in route(need, idle).candidates) for need in needs)


def lately_asked(
    demands: Sequence[ModelDemand], views: Mapping[str, Sequence[PoolView]], now: float
) -> Sequence[ModelDemand]:
    """The demands without tiers whose last item is older than any pool is kept for.

    Unless something waits or still counts as arriving: else the promise of a tier that was asked
    for once would be kept for ever.
    """
    found = []
    for demand in demands:
        of_model = views.get(demand.model, ())
        since = now - max((view.pool.idle_after_s for view in of_model), default=0.0)
        tiers = {
            tier: of
            for tier, of in demand.tiers.items()
            if of.queued or of.arrivals_per_s or of.last_at is None or of.last_at > since
        }
        found.append(replace(demand, tiers=tiers))
    return found


def spread_demand(
    demands: Sequence[ModelDemand],
    views: Mapping[str, Sequence[PoolView]],
    stuck: Collection[str] = (),
) -> dict[str, PoolLoad]:
    """The load of each pool by name; `views` are by model, as the router sees them.

    What is in flight beyond the slots of the workers that are up waits too: callers on the line
    are held there when no worker is. Pools named `stuck` bring no worker up, for all that was
    tried: nothing new falls to them while a model has another pool.
    """
    views = unmixed(views)
    loads: dict[str, PoolLoad] = {
        view.pool.name: PoolLoad() for of_model in views.values() for view in of_model
    }
    for view in (view for of_model in views.values() for view in of_model):
        load = loads[view.pool.name]
        held = load.in_flight + view.in_flight - held_up(view)
        loads[view.pool.name] = replace(load, in_flight=held)
    # What is held up counts once for a model: with the first of its demands.
    firsts = {demand.model: demand for demand in reversed(demands)}
    asked = [
        (tier, demand, tier_demand)
        for demand in demands
        for tier, tier_demand in _with_held_up(
            demand, views.get(demand.model, ()) if firsts[demand.model] is demand else ()
        ).items()
    ]
    for tier, demand, tier_demand in sorted(asked, key=lambda each: list(SlaTier).index(each[0])):
        of_model = views.get(demand.model, ())
        able = [view for view in of_model if view.pool.name not in stuck]
        _place(tier, demand, tier_demand, able or of_model, loads)
    return loads


def _is_asked(asked: TierDemand) -> bool:
    return asked.queued > 0 or asked.arrivals_per_s > 0 or asked.last_at is not None


def _need(tier: SlaTier, demand: ModelDemand, asked: TierDemand) -> Need:
    return Need(
        tier,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        first_token_only=demand.first_token_only,
        requires=demand.requires,
    )


def held_up(view: PoolView) -> int:
    """Items in flight that no worker works on: callers who are held for one."""
    return max(0, view.in_flight - view.ready * view.slots)


def _with_held_up(demand: ModelDemand, views: Iterable[PoolView]) -> Mapping[SlaTier, TierDemand]:
    # Only callers on the line go beyond the slots; which tier they are of is not counted.
    waiting = sum(held_up(view) for view in views)
    if not waiting:
        return demand.tiers
    silver = demand.tiers.get(SlaTier.SILVER, TierDemand())
    silver = replace(silver, queued=silver.queued + waiting)
    return {**demand.tiers, SlaTier.SILVER: silver}


def _place(
    tier: SlaTier,
    demand: ModelDemand,
    asked: TierDemand,
    views: Sequence[PoolView],
    loads: dict[str, PoolLoad],
) -> None:
    """Add one tier's demand of a model to the pools: each takes what it has room for."""
    if not _is_asked(asked):
        return
    need = _need(tier, demand, asked)
    choice = _choice(need, views)
    left = 1.0
    for view, room in choice:
        name, startup_s = view.pool.name, view.pool.startup_s
        whole = _added(loads[name], need, asked, view, left)
        before, after = loads[name].workers(startup_s), whole.workers(startup_s)
        adds = after - before
        share = 1.0 if after <= room or adds <= 1e-9 else max(0.0, (room - before) / adds)
        if share > 0:
            loads[name] = _added(loads[name], need, asked, view, left * share)
        left *= 1 - share
        if left <= 1e-9:
            return
    if choice:
        # More than all of them can do: the first one has it, and is at its most anyway.
        first, _ = choice[0]
        loads[first.pool.name] = _added(loads[first.pool.name], need, asked, first, left)


def _choice(need: Need, views: Sequence[PoolView]) -> list[tuple[PoolView, float]]:
    """The pools in the order in which they take the demand, each with the workers it has for it.

    Workers that are kept up in any case come first, as far as they go; then the order is that of
    the router with every pool up and none for nothing. While none of a pool's is up yet it does
    not come first where another pool has one, which would go before the first one came.
    """
    by_name = {view.pool.name: view for view in views if view.pool.max_workers > 0}
    as_kept = route(need, [_idle(view) for view in by_name.values()])
    any_up = any(view.ready for view in by_name.values())
    kept = [
        (by_name[pool.name], float(by_name[pool.name].kept))
        for pool in as_kept.pools
        if by_name[pool.name].kept > 0
        and (by_name[pool.name].ready or not any_up)
        and as_kept.of(pool.name).fits
    ]
    bought = route(need, [replace(_idle(view), kept=0) for view in by_name.values()])
    return [
        *kept,
        *((by_name[pool.name], float(pool.max_workers)) for pool in bought.pools),
    ]


def _idle(view: PoolView) -> PoolView:
    """The pool as it would be with a worker up and nothing to do."""
    return replace(
        view,
        ready=max(1, view.ready),
        in_flight=0,
        queued=0,
        live=NOTHING_LIVE,
        room=None,
        is_spare=False,
    )


def _added(load: PoolLoad, need: Need, asked: TierDemand, view: PoolView, part: float) -> PoolLoad:
    tier = need.tier
    each_s = worker_s_per_item(view, need.prompt_tokens, need.output_tokens)
    arrivals, queued = asked.arrivals_per_s * part, asked.queued * part
    seen = [at for at in (load.last_at, asked.last_at) if at is not None]
    measured_s = each_s or 0.0
    crowd = crowd_of(need, view) if arrivals > 0 else None
    return replace(
        load,
        busy={**load.busy, tier: load.busy.get(tier, 0.0) + arrivals * measured_s},
        backlog_s={**load.backlog_s, tier: load.backlog_s.get(tier, 0.0) + queued * measured_s},
        waiting=load.waiting + queued,
        last_at=max(seen, default=None),
        is_unmeasured=load.is_unmeasured or each_s is None,
        is_late=load.is_late or _is_late(need, view),
        crowds=load.crowds if crowd is None else load.crowds | {crowd},
    )


def _is_late(need: Need, view: PoolView) -> bool:
    """Whether the latest answers miss the tier although the idle pool would not."""
    if view.live == NOTHING_LIVE:
        return False
    idle = _idle(view)
    [should], [does] = (
        route(need, [each]).candidates for each in (idle, replace(idle, live=view.live))
    )
    return should.fits and not does.fits
