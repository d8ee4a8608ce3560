"""The events of the profiler's state machine: what is planned, measured and kept, as JSON.

`{"step": "plan"}` → the pools and their models; `{"step": "wake"}` → the pool has a worker started,
or kept up; `{"step": "measure"}`, which goes to the pool's own runner → all measurements so far, or
that there are enough; `{"step": "keep"}` → the profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.profiling import Cell, Measurement

STEP = "step"
PLAN, WAKE, MEASURE, KEEP = "plan", "wake", "measure", "keep"

MAX_TIMES = 120
"""Of each measurement: all of them travel with every step, and a state holds 256 KB."""


@dataclass(frozen=True, slots=True)
class PlanOrder:
    """What is to be profiled ("" for all): only what has no profile yet, unless `force`."""

    model: str
    pool: str
    force: bool
    budget_s: float


@dataclass(frozen=True, slots=True)
class TargetOrder:
    """One model on one pool, and what was measured of it so far."""

    model: str
    version: str
    pool: str
    budget_s: float
    done: tuple[Measurement, ...]


def step_of(event: Mapping[str, Any]) -> str:
    """The step that an event asks for; "" if it is none of the profiler's."""
    return str(event.get(STEP, ""))


def plan_from_event(event: Mapping[str, Any], default_budget_s: float) -> PlanOrder:
    """What is wished for.

    Raises:
        ValueError: a part of it is of the wrong kind.
    """
    wish = event.get("wish") or {}
    if not isinstance(wish, dict) or set(wish) - {"model", "pool", "force", "budgetSeconds"}:
        raise ValueError("expected an object of model, pool, force and budgetSeconds")
    budget_s = wish.get("budgetSeconds", default_budget_s)
    if isinstance(budget_s, bool) or not isinstance(budget_s, int | float) or not budget_s > 0:
        raise ValueError("budgetSeconds: expected a number above 0")
    force = wish.get("force", False)
    if not isinstance(force, bool):
        raise ValueError("force: expected true or false")
    return PlanOrder(_name(wish, "model"), _name(wish, "pool"), force, float(budget_s))


def plan_to_event(targets: Sequence[tuple[ModelSpec, Pool]], budget_s: float) -> dict[str, Any]:
    """The pools with the function that measures on each, and the models to be measured there."""
    pools: dict[str, dict[str, Any]] = {}
    for spec, pool in targets:
        entry = pools.setdefault(
            pool.name,
            {
                "pool": pool.name,
                "runnerArn": pool.runner,
                "budgetSeconds": budget_s,
                "models": [],
            },
        )
        entry["models"].append({"model": spec.name, "version": spec.version})
    return {"pools": list(pools.values())}


def target_from_event(event: Mapping[str, Any]) -> TargetOrder:
    """The model and the pool of a step, with the measurements that it brings along.

    Raises:
        KeyError: a part is missing.
    """
    done = tuple(_measurement(each) for each in event["measurements"])
    budget_s = float(event["budgetSeconds"])
    return TargetOrder(event["model"], event["version"], event["pool"], budget_s, done)


def measured_to_event(done: Sequence[Measurement], new: Measurement | None) -> dict[str, Any]:
    """All measurements so far; `done` once there are enough."""
    all_of_them = [*done, *([new] if new is not None else [])]
    return {"done": new is None, "measurements": [_plain(each) for each in all_of_them]}


def profile_to_event(profile: Profile) -> dict[str, Any]:
    """The profile, for the history of the execution."""
    return asdict(profile)


def _plain(measured: Measurement) -> dict[str, Any]:
    kept = slice(None, None, -(-len(measured.total_ms) // MAX_TIMES) or 1)
    plain = asdict(measured)
    plain["total_ms"] = [_short(ms) for ms in measured.total_ms[kept]]
    plain["first_ms"] = [_short(ms) for ms in measured.first_ms[kept]]
    return plain


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    times = {name: tuple(plain[name]) for name in ("total_ms", "first_ms")}
    return Measurement(**{**plain, **times, "cell": Cell(**plain["cell"])})


def _short(value: float) -> float:
    """Four digits are more than was measured."""
    return float(f"{value:.4g}")


def _name(wish: Mapping[str, Any], key: str) -> str:
    value = wish.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a text")
    return value
