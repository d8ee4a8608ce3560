"""How many workers a pool should have: one round, decided from what is known at the moment.

Out at once, in slowly. More are started as soon as they are needed; they are taken away once the
highest need of the last while was lower and what waited is done, half of them at a time, never
while one is on its way, and the last one only when there was no work for as long as the pool says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from synapse.domain.load import PoolLoad
from synapse.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How sure one must be before workers are taken away.

    Another worker is started for more than `tolerance` of one. `stable_s` is how far back the
    highest need is looked for, `cooldown_s` the pause after a change. A worker that is on its
    way for `patience_s` (or four of its pool's start-ups, if that is longer) holds nothing up. A
    pool that brings no worker up for `stuck_s` and two start-ups is given up for the time being.
    """

    tolerance: float = 0.1
    stable_s: float = 60.0
    cooldown_s: float = 30.0
    patience_s: float = 600.0
    stuck_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 0.5 or min(self.stable_s, self.cooldown_s) < 0:
            raise ValueError(f"not a usable scaling policy: {self}")


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as it is: workers wanted, up, and on their way, and what is asked of them.

    `starting` counts workers that start or load anything; `warm` is how many are to be up at this
    time, work or no work; `startup_s` how long one takes, as far as is known.
    """

    pool: Pool
    desired: int
    ready: int
    starting: int
    warm: int
    load: PoolLoad
    startup_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What a round leaves for the next one.

    `needs` are the workers worth keeping at times of late, each less than the one before: those
    that a later one exceeds say nothing more. `starting_since` is since when some worker or other
    has been on its way, `none_up_since` since when workers are wanted and none is up; None while
    that is not so.
    """

    last_work_at: float
    changed_at: float
    needs: tuple[tuple[float, int], ...] = ()
    starting_since: float | None = None
    none_up_since: float | None = None

    @staticmethod
    def fresh(now: float) -> Memory:
        """That of a pool that is looked at for the first time: as if it had just been busy."""
        return Memory(last_work_at=now, changed_at=now)

    def as_of(self, now: float) -> Memory:
        """The same without anything from the future: a clock that was put back holds nothing up."""
        starting, none_up = self.starting_since, self.none_up_since
        return Memory(
            last_work_at=min(self.last_work_at, now),
            changed_at=min(self.changed_at, now),
            needs=tuple((at, needed) for at, needed in self.needs if at <= now),
            starting_since=None if starting is None else min(starting, now),
            none_up_since=None if none_up is None else min(none_up, now),
        )


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """So many workers, and why; `need` is what the load comes to, in fractions of a worker."""

    pool: str
    desired: int
    was: int
    need: float
    reason: str

    @property
    def is_change(self) -> bool:
        """Whether another number was wanted before."""
        return self.desired != self.was


def decide(
    state: PoolState, memory: Memory, now: float, policy: ScalingPolicy
) -> tuple[ScalingDecision, Memory]:
    """How many workers the pool should have now, and what to remember for the next round."""
    memory = memory.as_of(now)
    last_work_at = _last_work_at(state, memory, now)
    is_idle = not state.load.has_work and now - last_work_at >= state.pool.idle_after_s
    if is_idle:
        # The arrivals counted are those of the last while, and older than that.
        state = replace(state, load=PoolLoad())
    need = _need(state)
    memory = replace(
        memory,
        last_work_at=last_work_at,
        needs=_remembered(memory.needs, now, _keep(state, need), policy.stable_s),
        starting_since=_since(memory.starting_since, now, state.starting > 0),
        none_up_since=_since(memory.none_up_since, now, state.desired > 0 and state.ready == 0),
    )
    desired, reason = _decided(state, memory, now, policy, need, is_idle)
    decision = ScalingDecision(state.pool.name, desired, state.desired, need, reason)
    return decision, replace(memory, changed_at=now) if decision.is_change else memory


def is_stuck(memory: Memory, startup_s: float, now: float, policy: ScalingPolicy) -> bool:
    """Whether a pool brings no worker up, for all that was tried."""
    since = memory.none_up_since
    return since is not None and now - since > stuck_after_s(startup_s, policy)


def stuck_after_s(startup_s: float, policy: ScalingPolicy) -> float:
    """How long a pool is waited for that takes so long to bring a worker up."""
    return policy.stuck_s + 2 * startup_s


def _since(before: float | None, now: float, holds: bool) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _last_work_at(state: PoolState, memory: Memory, now: float) -> float:
    load = state.load
    if load.has_work or (load.last_at is None and any(load.busy.values())):
        return now
    return max(memory.last_work_at, min(now, load.last_at or 0.0))


def _need(state: PoolState) -> float:
    if state.starting:
        return state.load.workers(state.startup_s)
    return need_of(state.load, state.ready, state.startup_s)


def need_of(load: PoolLoad, ready: int, startup_s: float) -> float:
    """Workers that a load asks for, where so many are `ready` and none is on its way.

    Where answers come late though those are at work they are too few, whatever was calculated: one
    more, and then it is looked at again.
    """
    need = load.workers(startup_s)
    if load.is_late and sum(load.busy.values()) > 0.5 * ready:
        return max(need, ready + 1.0)
    return need


def _floor(state: PoolState) -> int:
    return min(state.pool.max_workers, max(state.pool.min_workers, state.warm))


def _wanted(state: PoolState, workers: int) -> int:
    """So many, within the pool's limits; at least one while there is something to do, or to come.

    What falls to a pool may still be answered by another that is about to go.
    """
    is_asked = state.load.has_work or any(state.load.busy.values())
    least = max(_floor(state), 1 if is_asked else 0)
    return min(state.pool.max_workers, max(least, workers))


def _keep(state: PoolState, need: float) -> int:
    """How many would not be taken away at this need: as many as it comes to.

    What is kept free for peaks is in it, and that it holds for a while is asked for besides.
    """
    return _wanted(state, math.ceil(need))


def _remembered(
    needs: tuple[tuple[float, int], ...], now: float, keep: int, stable_s: float
) -> tuple[tuple[float, int], ...]:
    recent = [(at, n) for at, n in needs if at > now - stable_s and n > keep]
    return (*recent, (now, keep))


def _decided(
    state: PoolState,
    memory: Memory,
    now: float,
    policy: ScalingPolicy,
    need: float,
    is_idle: bool,
) -> tuple[int, str]:
    out = _wanted(state, math.ceil(max(0.0, need - policy.tolerance)))
    if out > state.desired:
        return out, _why_out(state, need, out)
    if is_idle:
        target = _floor(state)
        why = f"no work for {state.pool.idle_after_s:g} s"
    else:
        # The last one stays until the pool was idle for long enough.
        target = max(_wanted(state, memory.needs[0][1]), min(1, state.pool.max_workers))
        why = f"at most {target} were needed in the last {policy.stable_s:g} s"
    if target >= state.desired:
        return state.desired, _why_kept(state, need)
    held = _held(state, memory, now, policy, is_idle)
    if held:
        return state.desired, held
    if not is_idle:
        target = max(target, state.desired - max(1, state.desired // 2))
    return target, why


def _held(
    state: PoolState, memory: Memory, now: float, policy: ScalingPolicy, is_idle: bool
) -> str:
    """Why no worker is taken away just now; empty if one may be."""
    unchanged_s = now - memory.changed_at
    patience_s = max(policy.patience_s, 4 * state.startup_s)
    if memory.starting_since is not None and now - memory.starting_since < patience_s:
        return f"fewer would do, but {state.starting} on the way"
    if unchanged_s < policy.cooldown_s and not is_idle:
        return f"fewer would do, but it was changed {unchanged_s:.0f} s ago"
    if state.load.draining(state.startup_s) > policy.tolerance:
        # Measured anew in each round, a backlog that shrinks would never be done in its time.
        return f"fewer would do, but {state.load.waiting:.0f} still wait"
    return ""


def _why_out(state: PoolState, need: float, out: int) -> str:
    if out == _floor(state) and need <= out - 1:
        kept = f"{state.warm} to be warm" if state.warm == out else f"at least {out}"
        return f"{kept} at this time, work or no work"
    if state.load.is_unmeasured and need == 0:
        return "there is work of unknown size: one worker, until it was measured"
    at_most = " (its most)" if out == state.pool.max_workers else ""
    return f"{_why_kept(state, need)}{at_most}"


def _why_kept(state: PoolState, need: float) -> str:
    load = state.load
    if not load.has_work and need == 0:
        return "no work"
    parts = [f"{load.steady():.2f} for arrivals"]
    if load.waiting:
        parts.append(f"{load.draining(state.startup_s):.2f} for {load.waiting:.0f} waiting")
    if load.is_late:
        parts.append("answers come late")
    return f"needs {need:.2f} workers: {', '.join(parts)}"
