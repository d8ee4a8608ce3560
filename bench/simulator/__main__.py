"""`python -m bench.simulator`: the scenarios at the scale of AWS, as tables, JSON and pictures.

`--only one` measures this machine as well, and compares: it needs the workers' environment.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.simulator import from_zero, mixed_day, plots, tables, validation
from bench.simulator.mixed_day import DESIGNS, LOADS
from bench.simulator.one_machine import SCENARIOS
from bench.simulator.report import Report
from bench.simulator.sweep import FULL, MODELS, RATES, sweep
from bench.simulator.traces import TRACES, rivals

IMAGES = Path(__file__).parents[2] / "docs" / "images"
RESULTS = IMAGES / "simulation.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulator", description=__doc__)
    scenarios = ["zero", "day", "sweep", "full", "traces"]
    parser.add_argument("--only", nargs="+", choices=[*scenarios, "one"], default=scenarios)
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="of the sweep")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of `one`: how many quiet ones")
    parser.add_argument("--seconds", type=float, default=40.0, help="of `one`: length of a phase")
    parser.add_argument(
        "--pools", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), help="of `one`"
    )
    parser.add_argument("--write", action="store_true", help="renew docs/images")
    arguments = parser.parse_args()
    only, seed = arguments.only, arguments.seed
    results: dict[str, Any] = {}
    for pools in arguments.pools if "one" in only else ():
        _one(pools, arguments.seconds, arguments.rounds, seed)
    if "zero" in only:
        results["from_zero"] = _from_zero(seed, write=arguments.write)
    if "day" in only:
        results["mixed_day"] = _mixed_day(arguments.loads, seed)
    if "sweep" in only:
        results["sweep"] = {model: _sweep(model, arguments.rates, seed) for model in MODELS}
    if "full" in only:
        results["full"] = _full(seed)
    if "traces" in only:
        results["traces"] = _traces(seed)
    if arguments.write:
        _write(results)


def _write(found: dict[str, Any]) -> None:
    """Renew what was found anew; the rest stays as it was."""
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    days = {**results.get("mixed_day", {}), **found.get("mixed_day", {})}
    results |= {**found, "mixed_day": days}
    if len(results.get("mixed_day", {})) == len(LOADS):
        plots.mixed_day({load: results["mixed_day"][load] for load in LOADS}, IMAGES)
    if "sweep" in results:
        plots.sweep(results["sweep"], IMAGES)
    IMAGES.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _one(pools: str, seconds: float, rounds: int, seed: int) -> None:
    print(f"One machine, pools {pools!r}: predicted from what was measured apart in each round\n")
    found = validation.measure(SCENARIOS[pools], seconds, rounds, seed)
    validation.show(found, lambda each: each.predicted(seconds))


def _from_zero(seed: int, *, write: bool) -> dict[str, Any]:
    found = from_zero.run(seed)
    print(f"0 → 1,000 callers → 0, model rerank on inf2.xlarge, seed {seed} (simulated)\n")
    tables.tier_head()
    tables.tier_row("came when no worker was up", found.cold)
    for tier, report in found.warm.items():
        tables.tier_row(f"{tier}, all machines up", report)
    for tier, report in found.report.tiers.items():
        tables.tier_row(f"{tier}, whole episode", report)
    print(
        f"\nAll machines up after {found.settled_at:.0f} s; nothing left {found.idle_s:.0f} s after"
    )
    print("the last answer.\n")
    tables.bill(found.report)
    if write:
        plots.from_zero(found, IMAGES)
    return {
        "seed": seed,
        "settled_at_s": found.settled_at,
        "zero_after_last_answer_s": found.idle_s,
        **found.report.as_json(),
    }


def _mixed_day(loads: Sequence[str], seed: int) -> dict[str, Any]:
    reports: dict[str, list[Report]] = {}
    for load in loads:
        print(f"A mixed day at load {load!r}, seed {seed} (simulated)\n")
        tables.day_head()
        reports[load] = []
        for design in DESIGNS:
            if not mixed_day.is_able(design, LOADS[load]):
                tables.row(design.name, "cannot do it", *[""] * 9)
                continue
            report = mixed_day.run(design, LOADS[load], seed)
            reports[load].append(report)
            tables.day_row(report)
        print()
        _parts(reports[load])
    return {load: [report.as_json() for report in found] for load, found in reports.items()}


def _sweep(model: str, rates: Sequence[float], seed: int) -> list[dict[str, Any]]:
    print(
        f"{model} at rates from {rates[0]:g} to {rates[-1]:g} a second, seed {seed} (simulated)\n"
    )
    tables.sweep_head()
    found = []
    for per_s, report in sweep(model, rates, seed):
        tables.sweep_row(per_s, report)
        found.append({"per_s": per_s, **report.as_json()})
    print()
    return found


def _full(seed: int) -> list[dict[str, Any]]:
    print(f"Work all the time, rerank on g6.xlarge, seed {seed} (simulated)\n")
    tables.day_head()
    reports = []
    for full in FULL:
        reports.append(full.run(seed))
        tables.day_row(reports[-1])
    print()
    tables.rounds_head()
    for report in reports:
        tables.rounds_row(report)
    print()
    _parts(reports)
    return [report.as_json() for report in reports]


def _traces(seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, trace in TRACES.items():
        print(f"Trace {name!r}, {trace.per_s:.2f} a second: {trace.source}; seed {seed}\n")
        tables.day_head()
        reports = []
        for design in rivals():
            if mixed_day.is_able(design, trace.load()):
                reports.append(mixed_day.run(design, trace.load(), seed))
                tables.day_row(reports[-1])
        print()
        _parts(reports)
        found[name] = [report.as_json() for report in reports]
    return found


def _parts(reports: Sequence[Report]) -> None:
    tables.parts_head()
    for report in reports:
        tables.parts_row(report)
    print(flush=True)


if __name__ == "__main__":
    main()
