"""Figures as a run of the comparison would leave them, for the tests of what is made of them."""

from __future__ import annotations

from bench.peers.plan import Plan
from bench.peers.results import Crash, Measured, Point, Results, Round

PLAN = Plan((1, 8), 1.0, 50.0, 5.0, 300.0, 200, rest_s=4.0)


def a_point(
    per_s: float = 100.0,
    p99_ms: float = 20.0,
    errors: int = 0,
    stolen: float = 0.0,
    core_ms: float = 2.0,
) -> Point:
    kinds = {"HTTP 500": errors} if errors else {}
    return Point(500, per_s, p99_ms / 2, p99_ms, core_ms, kinds, stolen, 0.2, 0.05)


def nothing_answered(errors: int) -> Point:
    return Point(0, 0.0, None, None, None, {"TimeoutError": errors}, 0.0, 0.2, 0.0)


def a_round(point: Point | None = None) -> Round:
    point = point or a_point()
    return Round(1.5, 100.0, point, dict.fromkeys(PLAN.clients, point), rest_cores=0.02)


def measured(*points: Point, crash: Crash | None = None) -> Measured:
    rounds = {at: a_round(each) for at, each in enumerate(points or (a_point(),))}
    return Measured(rounds, [crash] if crash else [])


def results(workload: str = "noop", **peers: Measured) -> Results:
    """Names have `_` for what no name of an argument can have."""
    named = {name.replace("_", " "): one for name, one in peers.items()}
    return Results({"cores": 2}, {workload: PLAN}, {workload: named})
