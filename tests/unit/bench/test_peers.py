"""The comparison with other systems: what is asked, what it costs in time, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bench.compare import compare
from bench.peers.catalogue import CATALOGUE, WORKLOADS
from bench.peers.plan import PLANS
from bench.peers.plots import COLOURS, NEAREST, apart, draw, within
from bench.peers.report import page, tables
from bench.peers.results import Crash, Measured, Results
from bench.peers.run import Run
from tests.unit.bench.peers_figures import (
    PLAN,
    a_point,
    a_round,
    measured,
    nothing_answered,
    results,
)


def test_every_system_can_be_asked_for_what_it_serves(tmp_path: Path) -> None:
    for peer in CATALOGUE:
        for workload in peer.workloads:
            ask = peer.ask(workload, "one two three")
            assert ask.path.startswith("/")
            assert "one two three" in str(ask.body)
            assert str(4711) in " ".join(peer.command(workload, 4711, tmp_path))
        assert bool(peer.result) == bool(peer.id_key) == peer.durable == bool(peer.done[0])
        assert peer.name in COLOURS
    assert {w for peer in CATALOGUE for w in peer.workloads} == set(WORKLOADS) == set(PLANS)


def test_a_run_as_it_is_by_default_takes_fifty_minutes() -> None:
    needs_s = 0.0
    for workload, plan in PLANS.items():
        peers = [peer for peer in CATALOGUE if workload in peer.workloads]
        needs_s += Run(Results({}), Path("none")).reckoned_s(workload, plan, peers, 3)
        assert plan.rate_per_s * plan.equal_s * 3 >= 40
    assert 44 * 60 < needs_s < 51 * 60


def test_a_crowd_of_a_thousand_is_among_the_closed_loops() -> None:
    assert PLANS["noop"].clients == (1, 8, 64, 256, 1000)


def test_every_closed_loop_is_of_several_waves() -> None:
    for plan in PLANS.values():
        assert plan.waves >= 3
        assert plan.round_s(CATALOGUE[0]) > sum(
            plan.waves * count / plan.typical_per_s for count in plan.clients
        )


def test_a_plan_can_be_made_shorter() -> None:
    plan = PLANS["noop"].lasting(PLANS["noop"].seconds / 2)
    assert plan.equal_s == pytest.approx(PLANS["noop"].equal_s / 2)
    assert plan.reference_clients == 64
    assert PLANS["generate"].reference_clients == 32
    peer = CATALOGUE[0]
    assert replace(plan, killed=0).crashes_of(peer) == 0
    assert plan.round_s(peer) < PLANS["noop"].round_s(peer)


def test_the_tables_tell_errors_and_losses() -> None:
    jobs = measured(crash=Crash(200, 60, 0, 3, 1.2))
    jobs.crashes.append(Crash(200, 50, 1, 5, 1.4, late=4, slowest_s=31.4))
    failing = measured(a_point(errors=7), crash=Crash(200, 0, 0, 200, 0.9))
    failing.failures.append("Failed: it gave no answer:\nsome log")
    text = tables(results(Synapse_jobs=jobs, LitServe=failing))

    assert "| LitServe | 100 (10.0 / 20.0), 7 errors | 100 (10.0 / 20.0), 7 errors |" in text
    assert "| LitServe | 10.0 / 20.0 | 20.0 | 2.00 | 2.00 | 21 | 1.5 s | 100 MiB | 2.0% |" in text
    assert "| Synapse jobs | 60, 50 | 0, 1 | 0, 4 (31 s) | 3, 5 | 1.2, 1.4 s |" in text
    assert "| LitServe | accepts none | – | – | 200 | 0.9 s |" in text
    assert "LitServe failed: Failed: it gave no answer:" in text
    assert "some log" not in text


def test_the_page_of_the_docs_has_the_tables_and_the_picture() -> None:
    text = page(results(Synapse=measured()))
    assert text.startswith("# ")
    assert "(images/peers.svg)" in text
    assert text.endswith(tables(results(Synapse=measured())))


def test_what_was_not_answered_has_no_latency() -> None:
    text = tables(results(LitServe=measured(nothing_answered(3))))
    assert "0.00 (–), 3 errors" in text
    assert "| LitServe | – | – | – | – | 9 | 1.5 s | 100 MiB | 2.0% |" in text


def test_a_figure_that_neighbours_disturbed_in_every_round_is_marked() -> None:
    stolen = measured(a_point(stolen=0.3), a_point(stolen=0.2))
    once = measured(a_point(stolen=0.3), a_point())
    text = tables(results(Synapse=stolen, LitServe=once))
    assert "| Synapse | 100 (10.0 / 20.0) † | 100 (10.0 / 20.0) † |" in text
    assert "| LitServe | 100 (10.0 / 20.0) | 100 (10.0 / 20.0) |" in text
    assert "| Synapse | 30%, 20% | 30%, 20% |" in text


def test_a_start_that_neighbours_disturbed_does_not_count_where_others_do() -> None:
    calm, stolen = (
        replace(a_round(), first_answer_s=0.6),
        replace(a_round(), first_answer_s=2.3, start_stolen=0.4),
    )

    assert Measured({0: stolen, 1: calm, 2: stolen}).first_answer_s() == 0.6
    assert Measured({0: stolen}).first_answer_s() == 2.3


def test_files_from_before_it_was_measured_tell_nothing_of_rest(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    results(Synapse=measured()).save(file)
    saved = json.loads(file.read_text("utf-8"))
    del saved["measured"]["noop"]["Synapse"]["rounds"]["0"]["rest_cores"]
    file.write_text(json.dumps(saved), "utf-8")

    assert "| 0 | 1.5 s | 100 MiB | – |" in tables(Results.load([file]))


def test_what_is_left_of_the_engine_is_told_by_round() -> None:
    ours = measured(a_point(95.0, core_ms=2.0), a_point(50.0, core_ms=4.0), a_point(99.0))
    bare = measured(a_point(100.0), a_point(50.0), a_point(100.0))
    found = results("generate", Synapse=ours, **{"llama.cpp_server": bare})
    text = tables(found)
    row = "| Synapse ÷ llama.cpp server | 8 | 0.990 (0.95, 1.00, 0.99) | 1.000 (1.00, 0.50, 1.00) |"
    assert row in text
    disturbed = measured(a_point(20.0, stolen=0.5), a_point(50.0, core_ms=4.0), a_point(99.0))
    found = results("generate", Synapse=disturbed, **{"llama.cpp_server": bare})
    assert "| 8 | 0.995 (0.20†, 1.00, 0.99) | 0.750 (1.00†, 0.50, 1.00) |" in tables(found)
    assert "÷" not in tables(results("noop", Synapse=ours, Triton_bare=bare))


def test_the_picture_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    found = Results({}, dict.fromkeys(WORKLOADS, PLAN))
    assert not Results({}).has_figures
    for workload in WORKLOADS[:2]:
        found.measured[workload] = {
            "Synapse": measured(a_point(stolen=0.5)),
            "LitServe": measured(nothing_answered(2)),
            "BentoML": Measured(failures=["Failed: it gave no answer"]),
        }
    assert found.has_figures
    draw(found, tmp_path)
    assert "Synapse" in (tmp_path / "peers.svg").read_text("utf-8")
    assert (tmp_path / "peers.png").stat().st_size > 1000


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    places = apart([0.5, 0.5, 0.51, 0.9], 0.1)
    assert all(above - below >= 0.0999 for below, above in pairwise(places))
    assert places[3] == 0.9
    assert sum(places[:3]) == pytest.approx(1.51)
    assert within([0.5, 0.98, 1.1]) == pytest.approx([0.5, 1.0 - NEAREST, 1.0])


def test_a_regression_is_told_from_a_slower_machine() -> None:
    def run(ours: float, bare: float) -> Results:
        return results(Synapse=_of(ours), Triton_bare=_of(bare))

    slower_machine = compare(run(1000, 3000), run(500, 1500), "Synapse", 0.1)
    assert slower_machine
    assert not any(change.is_worse or change.is_better for change in slower_machine)

    worse = compare(run(1000, 3000), run(500, 3000), "Synapse", 0.1)
    named = {change.name for change in worse if change.is_worse}
    assert "noop: Synapse: answers/s at 8" in named
    assert "noop: Synapse: p99 ms at 50/s" in named
    assert "noop: Synapse: processor ms at 8" in named
    assert not any("first answer" in name or "memory" in name for name in named)

    better = compare(run(1000, 3000), run(1500, 3000), "Synapse", 0.1)
    assert sum(change.is_better for change in better) == len(named)


def test_what_neighbours_disturbed_is_not_compared() -> None:
    calm = results(Synapse=measured())
    disturbed = results(Synapse=measured(a_point(stolen=0.4)))
    named = {change.name for change in compare(calm, disturbed, "Synapse", 0.1)}
    assert named == {"noop: Synapse: first answer s", "noop: Synapse: memory MiB"}


def _of(per_s: float) -> Measured:
    return measured(a_point(per_s, p99_ms=1e5 / per_s, core_ms=1e3 / per_s))
