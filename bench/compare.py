"""`python -m bench.compare [BEFORE [AFTER]]`: which figures of two saved runs got worse.

Both files are what `python -m bench.peers` keeps; if they are not named they are the published run
and the last one. Two runs compare only if they were made on the same machine; what the machine
itself did is told by the bare engine, by whose change every other figure is divided.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.peers.plan import Plan
from bench.peers.results import Measured, Point, Results, Unreadable

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "bench" / "results" / "peers.json"
LATEST = ROOT / "build" / "peers.json"
REFERENCE = "Triton bare"
DEFAULT_TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after; `factor` is after ÷ before, the machine's own change taken out.

    `is_worse` and `is_better` say whether it changed by more than the tolerance.
    """

    name: str
    before: float
    after: float
    factor: float
    is_worse: bool
    is_better: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("before", type=Path, nargs="?", default=PUBLISHED)
    parser.add_argument("after", type=Path, nargs="?", default=LATEST)
    parser.add_argument("--tolerance", type=float, default=DEFAULT_TOLERANCE)
    parser.add_argument("--peer", default="Synapse", help="whose figures: all that begin so")
    given = parser.parse_args()
    try:
        before, after = Results.load([given.before]), Results.load([given.after])
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 2
    changes = compare(before, after, given.peer, given.tolerance)
    if not changes:
        print("the two files have no figure in common", file=sys.stderr)
        return 2
    for change in changes:
        mark = "WORSE" if change.is_worse else "better" if change.is_better else ""
        print(
            f"{change.name:55} {change.before:12,.1f} → {change.after:12,.1f}"
            f"  × {change.factor:.2f}  {mark}"
        )
    return int(any(change.is_worse for change in changes))


def compare(before: Results, after: Results, peer: str, tolerance: float) -> list[Change]:
    """Every figure that both runs have of the peers whose names begin with `peer`."""
    old, new = figures(before), figures(after)
    changes = []
    for key in old:
        name, workload, what = key
        if key not in new or not name.startswith(peer) or not old[key] or not new[key]:
            continue
        factor = new[key] / old[key] / _machine(old, new, workload, what)
        # More answers a second are better; of latencies, memory and starts less is.
        gain = factor if what.startswith("answers/s") else 1.0 / factor
        label = f"{workload}: {name}: {what}"
        worse, better = gain < 1.0 / (1.0 + tolerance), gain > 1.0 + tolerance
        changes.append(Change(label, old[key], new[key], factor, worse, better))
    return changes


Figures = Mapping[tuple[str, str, str], float]


def figures(results: Results) -> Figures:
    """The figures of a run by peer, workload and what they tell; none that neighbours disturbed."""
    found: dict[tuple[str, str, str], float] = {}
    for workload, peers in results.measured.items():
        for name, one in peers.items():
            if one.rounds:
                told = _told(one, results.plans[workload])
                found |= {(name, workload, what): value for what, value in told.items()}
    return found


def _told(one: Measured, plan: Plan) -> dict[str, float]:
    told = {
        "first answer s": one.first_answer_s(),
        "memory MiB": one.memory_mib(),
    }
    for count in plan.clients:
        point = one.closed(count)
        if not point.is_disturbed:
            told[f"answers/s at {count}"] = point.per_s
            told |= _of_point(point, f"at {count}")
    equal = one.equal()
    if not equal.is_disturbed:
        told |= _of_point(equal, f"at {plan.rate_per_s:g}/s")
    return told


def _of_point(point: Point, where: str) -> dict[str, float]:
    figures = {f"p99 ms {where}": point.p99_ms, f"processor ms {where}": point.core_ms}
    return {what: value for what, value in figures.items() if value is not None}


def _machine(old: Figures, new: Figures, workload: str, what: str) -> float:
    """By what the machine changed such a figure: 1 where that cannot be told."""
    key = (REFERENCE, workload, what)
    if what == "memory MiB" or not old.get(key) or not new.get(key):
        return 1.0
    change = new[key] / old[key]
    return change if math.isfinite(change) and change > 0 else 1.0


if __name__ == "__main__":
    sys.exit(main())
