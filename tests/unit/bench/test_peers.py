"""The comparison with other systems: what is asked, and what is made of the answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from bench.compare import compare
from bench.peers.catalogue import CATALOGUE, WORKLOADS
from bench.peers.load import Load, Refused, closed_loop, open_loop, poisson
from bench.peers.measure import Crash, Measured, Point
from bench.peers.plots import draw
from bench.peers.report import tables


def a_point(per_s: float = 100.0, p99_ms: float = 20.0, errors: int = 0) -> Point:
    return Point(per_s, p99_ms / 2, p99_ms, {"HTTP 500": errors} if errors else {})


def measured(peer: str, workload: str = "noop") -> Measured:
    one = Measured(peer, workload, first_answer_s=1.5, memory_mib=100.0)
    one.closed = {1: a_point(), 8: a_point()}
    one.at_equal_load = {"rate_per_s": 50.0, "point": a_point()}
    return one


def test_every_system_can_be_asked_for_what_it_serves(tmp_path: Path) -> None:
    for peer in CATALOGUE:
        for workload in peer.workloads:
            ask = peer.ask(workload, "one two three")
            assert ask.path.startswith("/")
            assert "one two three" in str(ask.body)
            assert str(4711) in " ".join(peer.command(workload, 4711, tmp_path))
        assert bool(peer.result) == bool(peer.id_key) == peer.durable == bool(peer.done[0])
    assert {w for peer in CATALOGUE for w in peer.workloads} == set(WORKLOADS)


async def test_a_closed_loop_counts_answers_and_errors_apart() -> None:
    answers = random.Random(1)

    async def work() -> None:
        await asyncio.sleep(0)
        if answers.random() < 0.3:
            raise Refused("HTTP 503")
        if answers.random() < 0.1:
            raise ConnectionResetError

    load = await closed_loop(4, 0.3, work)

    assert load.errors.total() > 0
    assert set(load.errors) <= {"HTTP 503", "ConnectionResetError"}
    assert load.per_s == pytest.approx(len(load.latencies_s) / load.took_s)


async def test_an_open_loop_sends_whatever_the_answers_do() -> None:
    started = 0

    async def work() -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(0.05)

    load = await open_loop([0.001] * 20, work)

    assert started == len(load.latencies_s) == 20
    assert load.took_s < 20 * 0.05


def test_arrivals_at_random_have_the_rate_asked_for() -> None:
    gaps = poisson(100.0, 50.0)
    assert len(gaps) == 5000
    assert sum(gaps) == pytest.approx(50.0, rel=0.1)
    assert poisson(100.0, 50.0) == gaps


def test_the_tables_tell_errors_and_losses() -> None:
    crashes = [Crash("Synapse jobs", 60, 0, 3, 1.2), Crash("LitServe", 0, 0, 200, 0.9)]
    failing = measured("LitServe")
    failing.closed[8] = a_point(errors=7)
    text = tables("noop", [measured("Synapse jobs"), failing], crashes)

    assert "| LitServe | 100 (10.0 / 20.0) | 100 (10.0 / 20.0), 7 errors |" in text
    assert "| LitServe | 10.0 / 20.0 | 7 | 1.5 s | 100 MiB |" in text
    assert "| Synapse jobs | 60 | 0 | 3 | 1.2 s |" in text
    assert "| LitServe | accepts none | – | 200 | 0.9 s |" in text


def test_what_was_not_answered_has_no_latency() -> None:
    nothing = Point.of(Load(errors=Counter({"TimeoutError": 3}), took_s=1.0))
    assert (nothing.per_s, nothing.p50_ms, nothing.p99_ms) == (0.0, None, None)
    one = measured("LitServe")
    one.closed[1] = nothing
    assert "0.00 (–), 3 errors" in tables("noop", [one], [])


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    found = {workload: [measured("Synapse", workload)] for workload in WORKLOADS}
    draw(found, tmp_path)
    assert "Synapse" in (tmp_path / "peers.svg").read_text("utf-8")
    assert (tmp_path / "peers.png").stat().st_size > 1000


def results(ours: float, bare: float) -> dict[str, object]:
    def one(peer: str, per_s: float) -> dict[str, object]:
        point = {"per_s": per_s, "p50_ms": 1.0, "p99_ms": 1000.0 / per_s, "errors": {}}
        memory = {"first_answer_s": 1.0, "memory_mib": 100.0}
        return {"peer": peer, "closed": {"8": point}, **memory}

    return {"measured": {"noop": [one("Synapse", ours), one("Triton bare", bare)]}}


def test_a_regression_is_told_from_a_slower_machine() -> None:
    slower_machine = compare(results(1000, 3000), results(500, 1500), "Synapse", 0.1)
    assert not any(change.is_worse or change.is_better for change in slower_machine)

    worse = compare(results(1000, 3000), results(500, 3000), "Synapse", 0.1)
    named = {change.name for change in worse if change.is_worse}
    assert named == {"noop: Synapse: answers/s at 8", "noop: Synapse: p99 ms at 8"}

    better = compare(results(1000, 3000), results(1500, 3000), "Synapse", 0.1)
    assert sum(change.is_better for change in better) == 2
