"""`python -m bench.peers`: Synapse beside what one would take instead, one after the other.

Every peer serves the same engine on the same cores and is asked by the same client. Figures of one
run are comparable with each other; of two machines they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import uvloop

from bench.peers import plots, report
from bench.peers.catalogue import CATALOGUE, WORKLOADS, Peer
from bench.peers.measure import (
    Crash,
    Failed,
    Measured,
    Point,
    at_equal_load,
    crash,
    measure,
)

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
CLIENTS = {"noop": (1, 8, 64, 256, 1000), "embed": (1, 8, 64, 256, 1000), "generate": (1, 8, 64)}
"""A generation takes seconds at 64 clients; at 1,000 most of what is measured is the queue."""

EQUAL_SHARE = 0.5
"""The equal load is this share of what the slowest peer bears at 8 clients."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--rounds", type=int, default=1, help="whole runs; the median is told")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of them")
    parser.add_argument("--peers", default="", help="some of them, by a part of their names")
    parser.add_argument("--rate", type=float, help="requests/s of the equal load, if not by itself")
    parser.add_argument("--save", type=Path, help="write all figures to this file as JSON")
    parser.add_argument("--no-crash", action="store_true", help="leave kill -9 out")
    given = parser.parse_args()
    chosen = [peer for peer in CATALOGUE if _is_named(peer, given.peers)]
    found: dict[str, list[Measured]] = {}
    crashes: dict[str, list[Crash]] = {}
    print(f"Machine: {platform.machine()}, {_cores()} cores, Python {platform.python_version()}\n")
    for workload in given.workloads.split(","):
        peers = [peer for peer in chosen if workload in peer.workloads]
        found[workload] = _loads(peers, workload, given.seconds, given.rounds, given.rate)
        if not given.no_crash and workload != "embed":
            crashes[workload] = _crashes(peers, workload)
        print(report.tables(workload, found[workload], crashes.get(workload, [])), flush=True)
    if given.save:
        given.save.write_text(json.dumps(_results(found, crashes), indent=1), encoding="utf-8")
    if not given.peers and set(given.workloads.split(",")) == set(WORKLOADS):
        plots.draw(found, IMAGES)


def _loads(
    peers: Sequence[Peer], workload: str, seconds: float, rounds: int, rate: float | None
) -> list[Measured]:
    """Each peer in each round, in turns; then all of them at the same load."""
    runs: dict[str, list[Measured]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            _say(f"{workload}: {peer.name}")
            try:
                one = uvloop.run(measure(peer, workload, CLIENTS[workload], seconds))
            except Failed as error:
                _say(str(error))
                continue
            runs[peer.name].append(one)
    medians = [_median(each) for each in runs.values() if each]
    if not medians:
        return []
    rate = rate or EQUAL_SHARE * min(one.closed[8].per_s for one in medians)
    by_name = {peer.name: peer for peer in peers}
    for one in medians:
        _say(f"{workload}: {one.peer} at {rate:.1f}/s")
        point = uvloop.run(at_equal_load(by_name[one.peer], workload, rate, 4 * seconds))
        one.at_equal_load = {"rate_per_s": rate, "point": point}
    return medians


def _crashes(peers: Sequence[Peer], workload: str) -> list[Crash]:
    outcomes = []
    for peer in peers:
        _say(f"{workload}: kill -9 of {peer.name}")
        try:
            outcomes.append(uvloop.run(crash(peer, workload)))
        except Failed as error:
            _say(str(error))
    return outcomes


def _median(runs: Sequence[Measured]) -> Measured:
    """The run of the median throughput, by number of clients."""
    first = runs[0]
    merged = Measured(first.peer, first.workload)
    merged.first_answer_s = statistics.median(run.first_answer_s for run in runs)
    merged.memory_mib = statistics.median(run.memory_mib for run in runs)
    for count in first.closed:
        points: list[Point] = sorted((run.closed[count] for run in runs), key=lambda p: p.per_s)
        merged.closed[count] = points[len(points) // 2]
    return merged


def _results(
    found: dict[str, list[Measured]], crashes: dict[str, list[Crash]]
) -> dict[str, object]:
    return {
        "synapse": version("synapse"),
        "measured": {name: [asdict(one) for one in each] for name, each in found.items()},
        "crashes": {name: [asdict(one) for one in each] for name, each in crashes.items()},
    }


def _is_named(peer: Peer, names: str) -> bool:
    return not names or any(part.lower() in peer.name.lower() for part in names.split(","))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    print(f"  … {text}", flush=True)


if __name__ == "__main__":
    main()
