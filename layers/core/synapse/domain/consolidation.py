"""Demand that needs no worker of its own: where others keep workers up that have time for it.

By price a model goes to the pool that is the cheapest for it on a busy worker. Where little goes
there, a whole worker is paid for it, although those that another pool needs anyway could do it
along. Then all of that pool's demand goes elsewhere, or none: a part would leave its worker up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from synapse.domain.load import ModelDemand, PoolLoad, fits_some, held_up, spread_demand
from synapse.domain.routing import PoolView
from synapse.domain.scaling import ScalingPolicy

TOLERANCE = ScalingPolicy().tolerance

Views = Mapping[str, Sequence[PoolView]]
Loads = Mapping[str, PoolLoad]


def consolidate_demand(
    demands: Sequence[ModelDemand], views: Views, stuck: Collection[str] = ()
) -> Loads:
    """The load of each pool by name, as `spread_demand` has it, but none where it may do without.

    A pool is done without if workers that are up, and needed anyway, keep the promises of all that
    would fall to it, and no further worker is needed for that. Not so one that is kept up in any
    case, or where somebody is held for its start.
    """
    loads: Loads = spread_demand(demands, views, stuck)
    pools = {view.pool.name: view for of_model in views.values() for view in of_model}
    waited_for = {v.pool.name for of_model in views.values() for v in of_model if held_up(v)}
    for name in sorted(pools):
        if pools[name].kept or name in waited_for or not _needed(loads[name], pools[name]):
            continue
        needed = {of: _needed(loads[of], pools[of]) for of in pools if of != name}
        others = _without(name, views, {of for of in needed if 0 < needed[of] <= pools[of].ready})
        mine = [each for each in demands if _serves(name, views.get(each.model, ()))]
        if not all(fits_some(demand, others[demand.model]) for demand in mine):
            continue
        found = spread_demand(demands, others, stuck)
        if all(_is_free(found[of], loads[of], pools[of]) for of in found):
            loads = {of: found.get(of, PoolLoad(in_flight=loads[of].in_flight)) for of in loads}
    return loads


def _without(name: str, views: Views, able: Collection[str]) -> dict[str, Sequence[PoolView]]:
    """The pools of each model, but only those that are `able` where it is served by this one."""
    return {
        model: [view for view in of_model if view.pool.name in able]
        if _serves(name, of_model)
        else of_model
        for model, of_model in views.items()
    }


def _serves(name: str, of_model: Sequence[PoolView]) -> bool:
    return any(view.pool.name == name for view in of_model)


def _needed(load: PoolLoad, view: PoolView) -> int:
    """Workers that the load asks for, as `domain.scaling` counts them."""
    if not load.waiting and not any(load.busy.values()):
        return 0
    return max(1, math.ceil(load.workers(view.pool.startup_s) - TOLERANCE))


def _is_free(load: PoolLoad, before: PoolLoad, view: PoolView) -> bool:
    """Whether what was added needs no further worker, as far as its size is known."""
    is_known = before.is_unmeasured or not load.is_unmeasured
    return is_known and _needed(load, view) <= _needed(before, view)
