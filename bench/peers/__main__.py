"""`python -m bench.peers`: Synapse beside what one would take instead, one after the other.

Every peer serves the same engine on the same cores and is asked by the same client. Figures of one
run are comparable with each other; of two machines they are not. What is measured is kept after
each peer, in the file of `--save`; `--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.compare import LATEST, PUBLISHED
from bench.peers import plots, report
from bench.peers.catalogue import CATALOGUE, ROOT, WORKLOADS, Peer
from bench.peers.plan import PLANS, Plan
from bench.peers.results import Results, Unreadable
from bench.peers.run import Run, reckoned_text

DOCS = ROOT / "docs"


def main() -> int:
    given = _arguments()
    try:
        results = Results.load(given.saved) if given.saved else _begin(given)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 2
    if not given.saved:
        # Whoever ends it, the peer under way is ended too.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            _measure(results, given)
        except KeyboardInterrupt:
            print(f"{given.save} has what was measured; --resume goes on", file=sys.stderr)
            return 130
    print(report.tables(results), flush=True)
    if not results.has_figures:
        print("nothing was measured", file=sys.stderr)
        return 1
    plots.draw(results, given.save.parent)
    if given.publish:
        _publish(results, given.save.parent)
    return 0


def _publish(results: Results, drawn: Path) -> None:
    """Put the figures where `make bench-compare` finds them, tables and plots into the docs."""
    results.save(PUBLISHED)
    for picture in plots.FILES:
        shutil.copyfile(drawn / picture, DOCS / "images" / picture)
    (DOCS / "peers.md").write_text(report.page(results), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of them")
    parser.add_argument("--peers", default="", help="some of them, by a part of their names")
    parser.add_argument("--rounds", type=int, default=3, help="medians are told of so many")
    parser.add_argument("--seconds", type=float, help="length of a closed loop; others follow")
    parser.add_argument("--rate", type=float, help="requests/s of the equal load")
    parser.add_argument("--no-crash", action="store_true", help="leave kill -9 out")
    parser.add_argument("--save", type=Path, default=LATEST, help="where the figures are kept")
    parser.add_argument("--resume", action="store_true", help="go on from the file of --save")
    parser.add_argument(
        "--from",
        dest="saved",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: tables and plots of these files",
    )
    parser.add_argument("--publish", action="store_true", help="put figures and plots into docs")
    given = parser.parse_args()
    unknown = set(given.workloads.split(",")) - set(WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if not _chosen(given.peers):
        parser.error(f"no peer is named so: {given.peers}")
    return given


def _begin(given: argparse.Namespace) -> Results:
    """The results to go on from, or empty ones.

    Raises:
        Unreadable: the file of `--save` has no figures.
        SystemExit: what is there was measured with other options.
    """
    results = Results(_machine())
    if given.save.exists() and given.resume:
        results = Results.load([given.save])
    elif given.save.exists():  # hours may be in it
        given.save.replace(given.save.with_suffix(".old.json"))
    for workload in given.workloads.split(","):
        plan = _plan(workload, given.seconds, given.rate)
        if results.plans.setdefault(workload, plan) != plan:
            sys.exit(f"{given.save} has {workload} with other options: save to another file")
    return results


def _measure(results: Results, given: argparse.Namespace) -> None:
    run = Run(results, given.save)
    todo: list[tuple[str, Plan, Sequence[Peer]]] = []
    for workload in given.workloads.split(","):
        plan = results.plans[workload]
        plan = replace(plan, killed=0) if given.no_crash else plan
        todo.append((workload, plan, _serving(workload, given.peers)))
    needs_s = {name: run.reckoned_s(name, plan, peers, given.rounds) for name, plan, peers in todo}
    print(reckoned_text(needs_s), flush=True)
    for workload, plan, peers in todo:
        run.rounds(workload, plan, peers, given.rounds)
        run.crashes(workload, plan, peers)


def _plan(workload: str, seconds: float | None, rate: float | None) -> Plan:
    plan = PLANS[workload]
    plan = plan.lasting(seconds) if seconds else plan
    return replace(plan, rate_per_s=rate) if rate else plan


def _serving(workload: str, names: str) -> Sequence[Peer]:
    return [peer for peer in _chosen(names) if workload in peer.workloads]


def _chosen(names: str) -> list[Peer]:
    parts = [part.strip().lower() for part in names.split(",")]
    return [peer for peer in CATALOGUE if any(part in peer.name.lower() for part in parts)]


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "Python": platform.python_version(),
        "Synapse": version("synapse"),
        "on": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    sys.exit(main())
