"""Who is ahead of whom: told only where the rounds of both are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.peers.plan import Plan
from bench.peers.results import STOLEN_AT_MOST, Measured, Point, Round

OURS = ("Synapse", "Synapse jobs")
LEAST_ROUNDS = 3
"""With fewer of either nothing is told: two rounds of one are apart from two of another by chance
once in three times, three from three once in ten."""

LEAST_FOR_P99 = 100
"""With fewer requests a round its p99 is its longest one, which is noise."""

Values = Sequence[float]
Read = Callable[[Round], float | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the figures that are compared; of most of them less is better."""

    name: str
    read: Read
    more_is_better: bool = False


@dataclass(slots=True)
class Verdict:
    """Whom a system is ahead of in a figure, with whom on a par, and behind whom."""

    system: str
    figure: str
    ahead: list[str] = field(default_factory=list)
    par: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


def verdicts(plan: Plan, peers: Mapping[str, Measured]) -> list[Verdict]:
    """Every figure of ours beside every other system that has it."""
    found = []
    for system in (name for name in OURS if name in peers):
        for figure in figures(plan):
            verdict = _verdict(system, figure, peers)
            if verdict.ahead or verdict.par or verdict.behind:
                found.append(verdict)
    return found


def figures(plan: Plan) -> list[Figure]:
    """What is compared: rates, latencies, processor time, starts."""
    load = f"at {plan.rate_per_s:g}/s"
    count = plan.reference_clients
    found = [Figure(f"p50 {load}", lambda one: _calm(one.equal, one.equal.p50_ms))]
    if plan.rate_per_s * plan.equal_s >= LEAST_FOR_P99:
        found.append(Figure(f"p99 {load}", lambda one: _calm(one.equal, one.equal.p99_ms)))
    found += [_rate(clients) for clients in plan.clients]
    found.append(
        Figure(f"processor a request {load}", lambda one: _calm(one.equal, one.equal.core_ms))
    )
    found.append(
        Figure(
            f"processor a request, {count} clients",
            lambda one: _calm(one.closed[count], one.closed[count].core_ms),
        )
    )
    found.append(Figure("first answer", _start))
    if plan.rest_s:
        found.append(Figure("of a core at rest", lambda one: one.rest_cores))
    return found


def compared(ours: Values, theirs: Values, more_is_better: bool) -> int:
    """1: all of ours are better than all of theirs; -1: worse; 0: the two meet."""
    above, below = min(ours) > max(theirs), max(ours) < min(theirs)
    return (above - below) if more_is_better else (below - above)


def _verdict(system: str, figure: Figure, peers: Mapping[str, Measured]) -> Verdict:
    verdict = Verdict(system, figure.name)
    ours = _values(peers[system].rounds.values(), figure.read)
    for name, one in peers.items():
        theirs = _values(one.rounds.values(), figure.read)
        if name in OURS or min(len(ours), len(theirs)) < LEAST_ROUNDS:
            continue
        who = (verdict.par, verdict.ahead, verdict.behind)
        who[compared(ours, theirs, figure.more_is_better)].append(name)
    return verdict


def _values(rounds: Iterable[Round], read: Read) -> list[float]:
    return [value for one in rounds if (value := read(one)) is not None]


def _rate(clients: int) -> Figure:
    unit = "1 client" if clients == 1 else f"{clients:,} clients"
    return Figure(
        f"answers/s, {unit}",
        lambda one: _calm(one.closed[clients], one.closed[clients].per_s),
        more_is_better=True,
    )


def _start(one: Round) -> float | None:
    return one.first_answer_s if one.start_stolen <= STOLEN_AT_MOST else None


def _calm(point: Point, value: float | None) -> float | None:
    return None if point.is_disturbed else value
