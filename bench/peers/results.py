"""What was measured, as it is kept: written after each peer, read again to go on or to be drawn."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.catalogue import CATALOGUE, WORKLOADS
from bench.peers.plan import Plan

STOLEN_AT_MOST = 0.10
OTHERS_AT_MOST_CORES = 0.3
"""Of a figure taken while neighbours had more of the processor, or other programs of this machine
kept more of its cores busy, another one is taken, or it is marked."""

DIGITS = 4


class Unreadable(Exception):
    """A file that has no figures, and why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One load: answers and answers a second, latencies in ms, errors by kind.

    `core_ms` is the processor time of the whole system for each answer. The rest is the machine's
    state meanwhile (`bench.control`).
    """

    answers: int
    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    core_ms: float | None
    errors: Mapping[str, int]
    stolen: float
    late_ms: float
    others_cores: float

    @property
    def is_disturbed(self) -> bool:
        """Whether others took too much for the figures to be believed."""
        return self.stolen > STOLEN_AT_MOST or self.others_cores > OTHERS_AT_MOST_CORES


@dataclass(frozen=True, slots=True)
class Round:
    """One life of one peer: from the command, through all loads, to its end.

    `start_stolen` is the share of the processor that neighbours had until the first answer,
    `rest_cores` how many cores it kept busy at rest; None in files from before that was measured.
    """

    first_answer_s: float
    memory_mib: float
    equal: Point
    closed: Mapping[int, Point]
    start_stolen: float = 0.0
    rest_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """kill -9 of everything amid so many requests.

    `accepted` is what the caller had been told is taken, `lost` what of it gave no result for as
    long as was waited, `late` what gave it only seconds after the first answer, the last of all
    after `slowest_s`. `broken` are requests whose caller got an error instead of an answer.
    `back_s` is from the restart to the first answer.
    """

    requests: int
    accepted: int
    lost: int
    broken: int
    back_s: float
    late: int = 0
    slowest_s: float = 0.0


@dataclass(slots=True)
class Measured:
    """One peer at one workload: its rounds by number, its crashes, and what went wrong."""

    rounds: dict[int, Round] = field(default_factory=dict)
    crashes: list[Crash] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def equal(self) -> Point:
        """The equal load: medians of the rounds."""
        return median([each.equal for each in self.rounds.values()])

    def closed(self, clients: int) -> Point:
        """A closed loop: medians of the rounds."""
        return median([each.closed[clients] for each in self.rounds.values()])

    def first_answer_s(self) -> float:
        """The median of the starts that nothing disturbed, or of all."""
        rounds = self.rounds.values()
        calm = [each for each in rounds if each.start_stolen <= STOLEN_AT_MOST] or rounds
        return statistics.median(each.first_answer_s for each in calm)

    def memory_mib(self) -> float:
        """The median of the rounds."""
        return statistics.median(each.memory_mib for each in self.rounds.values())

    def rest_cores(self) -> float | None:
        """The median of the rounds that have it."""
        return _middle(each.rest_cores for each in self.rounds.values())


@dataclass(slots=True)
class Results:
    """A run: the machine, the plan of each workload, and each peer by workload and name."""

    machine: dict[str, Any]
    plans: dict[str, Plan] = field(default_factory=dict)
    measured: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def of(self, workload: str, peer: str) -> Measured:
        """What there is of a peer; an empty one is made where there is nothing."""
        return self.measured.setdefault(workload, {}).setdefault(peer, Measured())

    @property
    def has_figures(self) -> bool:
        """Whether a round of anybody is there."""
        return any(one.rounds for peers in self.measured.values() for one in peers.values())

    def in_order(self) -> dict[str, dict[str, Measured]]:
        """What was measured, in the order of the catalogue, whatever the order of the rounds."""
        names = [peer.name for peer in CATALOGUE]
        return {
            workload: {name: peers[name] for name in names if name in peers}
            for workload in WORKLOADS
            if (peers := self.measured.get(workload))
        }

    def save(self, file: Path) -> None:
        """Write all of it; whoever reads meanwhile sees the old or the new."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")
        beside.replace(file)

    @staticmethod
    def load(files: Sequence[Path]) -> Results:
        """Read them; of a peer that several have at the same workload the last one counts.

        Raises:
            Unreadable: one is not there, or is no such file, or peers would stand side by side that
                were asked in different ways.
        """
        found = [_load(file) for file in files]
        merged = found[0]
        for file, one in zip(files[1:], found[1:], strict=True):
            for workload, peers in one.measured.items():
                known = merged.measured.setdefault(workload, {})
                stays = known.keys() - peers.keys()
                if stays and _loads(merged.plans[workload]) != _loads(one.plans[workload]):
                    raise Unreadable(f"{file} has {workload} with other loads than those before it")
                known.update(peers)
            merged.plans.update(one.plans)
        return merged


def _loads(plan: Plan) -> tuple[object, ...]:
    """What makes the figures of two peers comparable."""
    return plan.clients, plan.seconds, plan.rate_per_s, plan.equal_s, plan.waves


def median(points: Sequence[Point]) -> Point:
    """The median of each figure over the rounds that nothing disturbed, or over all; all errors."""
    calm = [point for point in points if not point.is_disturbed] or list(points)
    errors: dict[str, int] = {}
    for point in points:
        for kind, count in point.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    return Point(
        answers=sum(point.answers for point in calm),
        per_s=statistics.median(point.per_s for point in calm),
        p50_ms=_middle(point.p50_ms for point in calm),
        p99_ms=_middle(point.p99_ms for point in calm),
        core_ms=_middle(point.core_ms for point in calm),
        errors=errors,
        stolen=statistics.median(point.stolen for point in calm),
        late_ms=statistics.median(point.late_ms for point in calm),
        others_cores=statistics.median(point.others_cores for point in calm),
    )


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _load(file: Path) -> Results:
    try:
        return _read(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Unreadable(f"there is no {file}; make bench-peers writes one") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"{file} has no figures of make bench-peers: {error!r}") from error


def _read(saved: dict[str, Any]) -> Results:
    plans = {
        name: Plan(**{**plan, "clients": tuple(plan["clients"])})
        for name, plan in saved["plans"].items()
    }
    measured = {
        workload: {peer: _measured(one) for peer, one in peers.items()}
        for workload, peers in saved["measured"].items()
    }
    return Results(saved["machine"], plans, measured)


def _measured(saved: dict[str, Any]) -> Measured:
    rounds = {int(number): _round(one) for number, one in saved["rounds"].items()}
    # Files of before have one crash or none.
    crashes = saved["crashes"] if "crashes" in saved else filter(None, [saved["crash"]])
    return Measured(rounds, [Crash(**crash) for crash in crashes], saved["failures"])


def _round(saved: dict[str, Any]) -> Round:
    closed = {int(count): Point(**point) for count, point in saved["closed"].items()}
    return Round(
        saved["first_answer_s"],
        saved["memory_mib"],
        Point(**saved["equal"]),
        closed,
        saved.get("start_stolen", 0.0),  # files of before have none
        saved.get("rest_cores"),
    )


def _rounded(value: Any) -> Any:
    """The same with figures of four digits, which is more than they are good for."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
