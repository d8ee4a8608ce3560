"""A run of the comparison: in turns, kept after each peer, and ended by none of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.peers.catalogue import CATALOGUE, Peer
from bench.peers.measure import Failed
from bench.peers.plan import Plan
from bench.peers.results import Crash, Results, Round, Unreadable, median
from bench.peers.run import Run, reckoned_text
from tests.unit.bench.peers_figures import PLAN, a_point, a_round, measured, results

PEERS = [peer for peer in CATALOGUE if peer.name in ("Synapse jobs", "LitServe", "BentoML")]


class Measurements:
    """Stands for the systems: which were asked for what, and who breaks how often."""

    def __init__(self, **broken: int) -> None:
        self.asked: list[str] = []
        self.broken = broken

    async def measure(self, peer: Peer, workload: str, plan: Plan, repeat_until: float) -> Round:
        self.asked.append(peer.name)
        self._break(peer)
        await asyncio.sleep(0)
        return a_round()

    async def crash(self, peer: Peer, workload: str, requests: int) -> Crash:
        self.asked.append(f"kill {peer.name}")
        self._break(peer)
        return Crash(requests, 50, 0, 2, 1.0)

    def _break(self, peer: Peer) -> None:
        if self.broken.get(peer.name, 0):
            self.broken[peer.name] -= 1
            raise Failed("it gave no answer:\nits log")


def a_run(file: Path, found: Measurements, so_far: Results | None = None) -> Run:
    so_far = so_far or Results({}, {"noop": PLAN})
    return Run(so_far, file, found.measure, found.crash)


def test_peers_take_turns_and_every_second_round_goes_backwards(tmp_path: Path) -> None:
    found = Measurements()
    a_run(tmp_path / "peers.json", found).rounds("noop", PLAN, PEERS, 3)
    names = [peer.name for peer in PEERS]
    assert found.asked == [*names, *reversed(names), *names]


def test_a_peer_that_breaks_ends_nothing_and_has_its_turn_again(tmp_path: Path) -> None:
    found = Measurements(LitServe=2)
    run = a_run(tmp_path / "peers.json", found)
    run.rounds("noop", PLAN, PEERS, 2)
    run.crashes("noop", replace(PLAN, crashes=2), PEERS)

    kept = Results.load([tmp_path / "peers.json"])
    assert kept.measured["noop"]["LitServe"].rounds == {}
    assert kept.measured["noop"]["LitServe"].failures == ["Failed: it gave no answer:\nits log"] * 2
    assert found.asked[-2:] == ["kill Synapse jobs"] * 2
    assert kept.measured["noop"]["Synapse jobs"].crashes == [Crash(200, 50, 0, 2, 1.0)] * 2
    assert set(kept.measured["noop"]["BentoML"].rounds) == {0, 1}


def test_a_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    first = Measurements(LitServe=1)
    run = a_run(file, first)
    run.rounds("noop", PLAN, PEERS, 1)
    run.crashes("noop", PLAN, PEERS)

    second = Measurements()
    run = a_run(file, second, Results.load([file]))
    run.rounds("noop", PLAN, PEERS, 1)
    run.crashes("noop", replace(PLAN, crashes=2), PEERS)

    assert second.asked == ["LitServe", "kill Synapse jobs"]
    assert set(Results.load([file]).measured["noop"]["LitServe"].rounds) == {0}


def test_who_accepts_jobs_is_killed_as_often_as_the_plan_has_it(tmp_path: Path) -> None:
    found = Measurements()
    run = a_run(tmp_path / "peers.json", found)
    run.crashes("noop", replace(PLAN, killed=0), PEERS)
    assert found.asked == []
    run.crashes("noop", replace(PLAN, crashes=3), PEERS)
    assert found.asked == ["kill Synapse jobs"] * 3


def test_files_of_before_have_one_crash_or_none(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    results(Synapse=measured(), LitServe=measured()).save(file)
    saved = json.loads(file.read_text("utf-8"))
    for name, crash in (
        ("Synapse", None),
        ("LitServe", {"requests": 200, "accepted": 50, "lost": 1, "broken": 2, "back_s": 1.0}),
    ):
        saved["measured"]["noop"][name]["crash"] = crash
        del saved["measured"]["noop"][name]["crashes"]
    file.write_text(json.dumps(saved), "utf-8")

    again = Results.load([file]).measured["noop"]
    assert again["Synapse"].crashes == []
    assert again["LitServe"].crashes == [Crash(200, 50, 1, 2, 1.0)]


def test_what_is_measured_is_kept_at_once(tmp_path: Path) -> None:
    file = tmp_path / "build" / "peers.json"
    seen: list[int] = []

    class Stopped(Measurements):
        async def measure(self, peer: Peer, workload: str, plan: Plan, until: float) -> Round:
            if file.exists():
                seen.append(len(Results.load([file]).measured["noop"]))
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return await super().measure(peer, workload, plan, until)

    with pytest.raises(KeyboardInterrupt):
        a_run(file, Stopped()).rounds("noop", PLAN, PEERS, 1)
    assert seen == [1, 2]
    assert sum(bool(one.rounds) for one in Results.load([file]).measured["noop"].values()) == 2


def test_figures_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    found = results(Synapse=measured(a_point(123.456789), crash=Crash(200, 50, 0, 2, 1.0)))
    found.save(file)
    again = Results.load([file])
    assert again.plans == found.plans
    assert again.measured["noop"]["Synapse"].crashes == [Crash(200, 50, 0, 2, 1.0)]
    assert again.measured["noop"]["Synapse"].closed(8).per_s == 123.5


def test_a_file_that_is_none_of_ours_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    with pytest.raises(Unreadable, match=r"there is no .*peers\.json"):
        Results.load([file])
    for text in ("{", "[]", '{"measured": {"noop": []}}'):
        file.write_text(text, "utf-8")
        with pytest.raises(Unreadable, match="has no figures"):
            Results.load([file])


def test_several_files_are_put_together(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    results(Synapse=measured(a_point(1.0)), LitServe=measured(a_point(2.0))).save(first)
    again = results(Synapse=measured(a_point(3.0)))
    again.plans["embed"] = PLAN
    again.measured["embed"] = {"Synapse": measured(a_point(4.0))}
    again.save(second)

    both = Results.load([first, second])
    rates = {name: one.closed(8).per_s for name, one in both.measured["noop"].items()}
    assert rates == {"Synapse": 3.0, "LitServe": 2.0}
    assert both.measured["embed"]["Synapse"].closed(8).per_s == 4.0


def test_peers_that_were_asked_in_different_ways_do_not_stand_side_by_side(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    results(Synapse=measured(), LitServe=measured()).save(first)
    again = results(Synapse=measured(a_point(3.0)))
    again.plans["noop"] = replace(PLAN, clients=(1,), waves=3)
    again.save(second)

    with pytest.raises(Unreadable, match=r"b\.json has noop with other loads"):
        Results.load([first, second])
    # What all of them were asked anew stands for itself; crashes are no load.
    again.measured["noop"]["LitServe"] = measured(a_point(4.0))
    again.save(second)
    assert Results.load([first, second]).plans["noop"].clients == (1,)
    again.plans["noop"] = replace(PLAN, crashes=7)
    del again.measured["noop"]["LitServe"]
    again.save(second)
    assert set(Results.load([first, second]).measured["noop"]) == {"Synapse", "LitServe"}


def test_figures_are_told_in_the_order_of_the_catalogue() -> None:
    found = results("embed", BentoML=measured(), Synapse=measured())
    found.measured["noop"] = {"LitServe": measured()}
    assert [(name, list(peers)) for name, peers in found.in_order().items()] == [
        ("noop", ["LitServe"]),
        ("embed", ["Synapse", "BentoML"]),
    ]


def test_the_median_leaves_out_what_neighbours_disturbed() -> None:
    calm = [a_point(100.0, p99_ms=20.0), a_point(110.0, p99_ms=30.0, errors=1)]
    stolen = a_point(10.0, p99_ms=900.0, errors=2, stolen=0.4)
    middle = median([*calm, stolen])
    assert middle.per_s == 105.0
    assert middle.p99_ms == 25.0
    assert middle.errors == {"HTTP 500": 3}
    assert not middle.is_disturbed
    assert median([stolen]).is_disturbed
    busy = replace(a_point(10.0), others_cores=1.0)
    assert median([*calm, busy]).per_s == 105.0


def test_how_long_it_will_take_is_said_of_what_is_missing(tmp_path: Path) -> None:
    run = a_run(tmp_path / "peers.json", Measurements())
    whole_s = run.reckoned_s("noop", PLAN, PEERS, 2)
    run.rounds("noop", PLAN, PEERS, 1)
    crashes_s = PLAN.crash_s(next(peer for peer in PEERS if peer.durable))
    assert run.reckoned_s("noop", PLAN, PEERS, 2) == pytest.approx((whole_s + crashes_s) / 2)
    run.rounds("noop", PLAN, PEERS, 2)
    run.crashes("noop", PLAN, PEERS)
    assert run.reckoned_s("noop", PLAN, PEERS, 2) == 0.0
    assert reckoned_text({"noop": 90.0, "embed": 120.0}) == (
        "Reckoned: 4 minutes (noop 1.5, embed 2.0), up to 4 where others disturb it"
    )
