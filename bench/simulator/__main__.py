"""`python -m bench.simulator`: the scenarios at the scale of AWS, as tables, JSON and pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.simulator import from_zero, mixed_day, plots
from bench.simulator.mixed_day import DESIGNS, LOADS
from bench.simulator.report import Report, TierReport
from synapse.domain.job import SlaTier

IMAGES = Path(__file__).parents[2] / "docs" / "images"
RESULTS = IMAGES / "simulation.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulator", description=__doc__)
    parser.add_argument("--only", choices=["zero", "day"], help="one scenario")
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="renew docs/images")
    arguments = parser.parse_args()
    only, seed, write = arguments.only, arguments.seed, arguments.write
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if only in (None, "zero"):
        results["from_zero"] = _from_zero(seed, write=write)
    if only in (None, "day"):
        found = _mixed_day(arguments.loads, seed)
        results["mixed_day"] = {**results.get("mixed_day", {}), **found}
    if write:
        if len(results.get("mixed_day", {})) == len(LOADS):
            plots.mixed_day({load: results["mixed_day"][load] for load in LOADS}, IMAGES)
        IMAGES.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _from_zero(seed: int, *, write: bool) -> dict[str, Any]:
    found = from_zero.run(seed)
    print(f"0 → 1,000 callers → 0, model rerank on inf2.xlarge, seed {seed} (simulated)\n")
    print("| requests | number | delivered | refused | p50, ms | p99, ms | caller's p50 | p99 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    _row("came when no worker was up", found.cold)
    for tier, report in found.warm.items():
        _row(f"{tier}, all machines up", report)
    for tier, report in found.report.tiers.items():
        _row(f"{tier}, whole episode", report)
    print(
        f"\nAll machines up after {found.settled_at:.0f} s; nothing left {found.idle_s:.0f} s after"
    )
    print("the last answer.\n")
    _cost(found.report)
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
        print(
            "| design | machines, USD | services, USD | gold and silver kept | gold p99, ms "
            "| silver p99, ms | bronze p99, s | in use | not delivered |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        reports[load] = []
        for design in DESIGNS:
            if not mixed_day.is_able(design, LOADS[load]):
                print(f"| {design.name} | cannot do it | | | | | | | |")
                continue
            report = mixed_day.run(design, LOADS[load], seed)
            reports[load].append(report)
            _design(report)
        print(flush=True)
    return {load: [report.as_json() for report in found] for load, found in reports.items()}


def _design(report: Report) -> None:
    gold, silver, bronze = (report.tiers[tier] for tier in SlaTier)
    lost = sum(tier.requests - tier.delivered for tier in report.tiers.values())
    services = f"{report.services.usd:.2f}" if report.services.usd else "not counted"
    print(
        f"| {report.name} | {report.machines_usd:.2f} | {services} | {report.kept:.1%} "
        f"| {gold.p99_ms:,.0f} | {silver.p99_ms:,.0f} | {bronze.p99_ms / 1000:,.1f} "
        f"| {report.use:.0%} | {lost} |",
        flush=True,
    )


def _row(name: str, tier: TierReport) -> None:
    print(
        f"| {name} | {tier.requests:,} | {tier.delivered / max(1, tier.requests):.1%} "
        f"| {tier.refused} | {tier.p50_ms:,.0f} | {tier.p99_ms:,.0f} "
        f"| {tier.front_p50_ms:,.0f} | {tier.front_p99_ms:,.0f} |"
    )


def _cost(report: Report) -> None:
    services = report.services
    print("| what it cost | USD |")
    print("| --- | --- |")
    for name, usage in report.pools.items():
        idle = 1 - usage.busy_s / usage.paid_s if usage.paid_s else 0.0
        print(
            f"| {name}: at most {usage.most}, {idle:.0%} of it idle or starting | {usage.usd:.2f} |"
        )
    print(f"| API Gateway | {services.gateway:.2f} |")
    print(f"| Lambda | {services.functions:.2f} |")
    others = services.usd - services.gateway - services.functions
    print(f"| DynamoDB, SQS, Step Functions | {others:.2f} |")
    print(f"| together | {report.machines_usd + services.usd:.2f} |\n")


if __name__ == "__main__":
    main()
