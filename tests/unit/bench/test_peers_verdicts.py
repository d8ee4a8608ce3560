"""Who is told to be ahead: only who is so in every round."""

from __future__ import annotations

from dataclasses import replace

from bench.peers.report import tables
from bench.peers.verdicts import Verdict, compared, verdicts
from tests.unit.bench.peers_figures import PLAN, a_point, measured, results

RATE = "answers/s, 8 clients"


def test_ahead_is_whose_rounds_are_all_better() -> None:
    assert compared([11, 12, 13], [8, 9, 10], more_is_better=True) == 1
    assert compared([11, 12, 13], [8, 9, 10], more_is_better=False) == -1
    assert compared([8, 9, 10], [11, 12, 13], more_is_better=True) == -1
    assert compared([8, 9, 10], [11, 12, 13], more_is_better=False) == 1


def test_rounds_that_meet_are_on_a_par_whatever_their_medians() -> None:
    assert compared([10, 20, 21], [9, 9, 10], more_is_better=True) == 0
    assert compared([10, 20, 21], [9, 9, 11], more_is_better=True) == 0


def test_of_fewer_than_three_rounds_nothing_is_told() -> None:
    two, three = (measured(*(a_point() for _ in range(count))) for count in (2, 3))
    assert not verdicts(PLAN, {"Synapse": two, "LitServe": three})
    assert not verdicts(PLAN, {"Synapse": three, "LitServe": two})
    assert verdicts(PLAN, {"Synapse": three, "LitServe": three})


def test_every_other_system_is_told_of_and_not_our_own() -> None:
    peers = {
        "Synapse": measured(*(a_point(100.0 + at) for at in range(3))),
        "Synapse jobs": measured(*(a_point(10.0) for _ in range(3))),
        "LitServe": measured(*(a_point(90.0 + at) for at in range(3))),
        "Ray Serve": measured(*(a_point(99.0 + at) for at in range(3))),
        "BentoML": measured(*(a_point(190.0) for _ in range(3))),
    }
    told = [one for one in verdicts(PLAN, peers) if one.figure == RATE]
    assert told == [
        Verdict("Synapse", RATE, ["LitServe"], ["Ray Serve"], ["BentoML"]),
        Verdict("Synapse jobs", RATE, [], [], ["LitServe", "Ray Serve", "BentoML"]),
    ]
    row = f"| Synapse | {RATE} | LitServe | Ray Serve | BentoML |"
    found = results()
    found.measured["noop"] = peers
    assert row in tables(found)


def test_a_round_that_neighbours_disturbed_does_not_count() -> None:
    ours = measured(a_point(5.0, stolen=0.5), *(a_point(100.0) for _ in range(3)))
    theirs = measured(*(a_point(50.0) for _ in range(3)))
    told = verdicts(PLAN, {"Synapse": ours, "LitServe": theirs})
    assert Verdict("Synapse", RATE, ahead=["LitServe"]) in told


def test_the_longest_of_a_few_requests_is_not_compared() -> None:
    three = measured(*(a_point() for _ in range(3)))
    peers = {"Synapse": three, "LitServe": three}
    few = replace(PLAN, rate_per_s=1.3)
    assert any(one.figure.startswith("p99") for one in verdicts(PLAN, peers))
    assert not any(one.figure.startswith("p99") for one in verdicts(few, peers))
    assert any(one.figure.startswith("p50") for one in verdicts(few, peers))
