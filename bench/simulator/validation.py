"""Whether the simulator is right: the one machine measured and predicted, in one run.

Each round is predicted from what was measured in it: first what the simulator has to know
(`calibration`), then callers without bronze, then with it. Machines change their pace from one
minute to the next: no round is judged by what another minute held. Rounds in which others had the
processor are measured again, a few times.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import uvloop

from bench.client import percentile
from bench.control import Control, Watch
from bench.processor import processor_s
from bench.server import server
from bench.simulator import tables
from bench.simulator.calibration import Calibration
from bench.simulator.facts import Timed
from bench.simulator.one_machine import Figures, Predicted, predict
from bench.tiers import SETTLE_S, WARM_UP_S, Load, Phase, Scenario
from synapse.domain.job import SlaTier
from synapse.domain.window import LOOK_BACK_S

SHARES = (0.5, 0.99)

QUIET = 0.1
"""Cores that others may take while a round is measured, for it to say something of the model."""

LOOK_S = 10.0
MOST_LOOKS = 30
"""A round begins once it was quiet for that long; after so many looks it begins anyway."""

MOST_TRIES = 3
"""So many rounds are measured for each that is wanted, in search of quiet ones."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Round:
    """Callers without bronze and with it, bronze alone; `figures` are what was measured apart.

    `seed` is of when its callers came, `watched` is the machine meanwhile, by what was done.
    """

    scenario: Scenario
    figures: Figures
    seed: int
    without: Phase
    beside: Phase
    bronze_alone_per_s: float
    watched: Sequence[tuple[str, Control]]

    @property
    def is_disturbed(self) -> bool:
        """Whether others had more of the processors meanwhile than the model can know."""
        return any(each.taken_cores > QUIET for _, each in self.watched)

    def predicted(self, seconds: float) -> Predicted:
        """What the simulator says of it, where each phase takes so long."""
        return predict(self.scenario, self.figures, seconds, self.seed)


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure: of all rounds together, predicted and measured, and how far off in each round."""

    what: str
    predicted: float
    measured: float
    off_by_round: Sequence[float]

    @property
    def off(self) -> float:
        """How far the prediction is from what was measured: 0.1 is 10 % more."""
        return self.predicted / self.measured - 1


def measure(scenario: Scenario, seconds: float, rounds: int, seed: int = 1) -> list[Round]:
    """Run a server, and measure until there are so many undisturbed rounds."""
    with server(scenario.models, scenario.pools) as running, Watch() as watch:

        async def all_rounds() -> list[Round]:
            connector = aiohttp.TCPConnector(limit=1000)
            async with aiohttp.ClientSession(running.url, connector=connector) as session:
                load = Load(session, scenario)
                await load.phase(WARM_UP_S, seed=0, bronze_on=False)
                found: list[Round] = []
                while len(found) < MOST_TRIES * rounds and len(undisturbed(found)) < rounds:
                    # A round's figures do not hang on what the server remembers of the last one.
                    await asyncio.sleep(LOOK_BACK_S)
                    await _calm(watch)
                    number = seed + len(found)
                    found.append(await _round(load, seconds, number, watch, running.pid))
                return found

        return uvloop.run(all_rounds())


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """Those that say something of the model."""
    return [each for each in rounds if not each.is_disturbed]


async def _round(load: Load, seconds: float, seed: int, watch: Watch, pid: int) -> Round:
    calibration, apart = await _watched(watch, Calibration.measured(load, pid, seed))
    async with load.stream(seed):
        alone_per_s, full = await _watched(watch, load.bronze_per_s(seconds))
    without, quiet = await _watched(watch, load.phase(seconds, seed=seed, bronze_on=False))
    async with load.stream(seed):
        await load.phase(SETTLE_S, seed=0, bronze_on=True)
        beside, busy = await _watched(watch, load.phase(seconds, seed=seed, bronze_on=True))
    names = ("measured apart", "bronze alone", "without bronze", "beside bronze")
    watched = tuple(zip(names, (apart, full, quiet, busy), strict=True))
    found = Round(load.scenario, calibration.figures(), seed, without, beside, alone_per_s, watched)
    print("." if found.is_disturbed else "o", end="", file=sys.stderr, flush=True)
    return found


async def _calm(watch: Watch) -> None:
    """Wait until others leave the processors alone, but not for ever."""
    for _ in range(MOST_LOOKS):
        _, seen = await _watched(watch, asyncio.sleep(LOOK_S))
        if seen.taken_cores <= QUIET:
            return


async def _watched(watch: Watch, work: Coroutine[Any, Any, T]) -> tuple[T, Control]:
    watch.begin()
    own_s = processor_s(os.getpid())
    found = await work
    return found, watch.end(processor_s(os.getpid()) - own_s)


Pairs = Sequence[tuple[Predicted, Round]]
"""Rounds as predicted and as measured."""


def compared(pairs: Pairs) -> list[Compared]:
    """What was predicted and what was measured, of these rounds together."""
    return [
        *(
            _times(pairs, tier, share, bronze_on=bronze_on)
            for bronze_on in (False, True)
            for tier in (SlaTier.GOLD, SlaTier.SILVER)
            for share in SHARES
        ),
        _rates(
            "bronze alone, jobs/s",
            [(said.bronze_alone_per_s, seen.bronze_alone_per_s) for said, seen in pairs],
        ),
        _rates(
            "bronze beside, jobs/s",
            [(said.bronze_beside_per_s, seen.beside.bronze_per_s) for said, seen in pairs],
        ),
    ]


def _times(pairs: Pairs, tier: SlaTier, share: float, *, bronze_on: bool) -> Compared:
    times_ms = [
        (
            (said.beside if bronze_on else said.alone)[tier],
            (seen.beside if bronze_on else seen.without).latencies_ms[tier],
        )
        for said, seen in pairs
    ]

    def of(values: Sequence[float]) -> float:
        return percentile(sorted(values), share)

    return Compared(
        f"{tier}, p{share * 100:.0f}, {'beside bronze' if bronze_on else 'without bronze'}, ms",
        of([ms for said, _ in times_ms for ms in said]),
        of([ms for _, seen in times_ms for ms in seen]),
        [of(said) / of(seen) - 1 for said, seen in times_ms],
    )


def _rates(what: str, pairs: Sequence[tuple[float, float]]) -> Compared:
    return Compared(
        what,
        statistics.mean(said for said, _ in pairs),
        statistics.mean(seen for _, seen in pairs),
        [said / seen - 1 for said, seen in pairs],
    )


def show(rounds: Sequence[Round], predicted: Callable[[Round], Predicted]) -> None:
    """As tables, with what is predicted of each round."""
    quiet = undisturbed(rounds)
    print(
        f"{len(quiet)} of {len(rounds)} rounds were undisturbed: others took {QUIET} cores at most."
    )
    if not quiet:
        print("So all are shown, which say little of the model: run it on a quieter machine.")
    print()
    tables.head("figure", "predicted", "measured", "off", "in each round")
    for each in compared([(predicted(each), each) for each in quiet or rounds]):
        offs = ", ".join(f"{off:+.0%}" for off in each.off_by_round)
        tables.row(
            *(each.what, f"{each.predicted:.1f}", f"{each.measured:.1f}"),
            *(f"{each.off:+.0%}", offs),
        )
    print()
    _show_machine(rounds)
    print("\nMeasured apart, and put in:\n")
    tables.head("what, p50 and p99 in ms", *(str(number + 1) for number in range(len(rounds))))
    for pool in rounds[0].scenario.shapes:
        name = pool.name
        work = (_ms(each.figures.work[name]) for each in rounds)
        full = (_ms(each.figures.full[name]) for each in rounds)
        tables.row(f"an item on the engine of pool {name}", *work)
        tables.row("a job there where all slots are full", *full)
    tables.row("what lies around it for a caller", *(_ms(each.figures.around) for each in rounds))
    thread = (f"{each.figures.thread_s * 1000:.2f}" for each in rounds)
    tables.row("what an item takes of the server's thread", *thread)
    print()


def _show_machine(rounds: Sequence[Round]) -> None:
    tables.head("round", "timers late, p99, ms", "cores used by others", "stolen by the host")
    for number, of_round in enumerate(rounds):
        for name, control in of_round.watched:
            tables.row(
                f"{number + 1}, {name}{', disturbed' if of_round.is_disturbed else ''}",
                f"{control.late_ms:.1f}",
                f"{control.others_cores:.2f}",
                f"{control.stolen_cores:.2f}",
            )


def _ms(timed: Timed) -> str:
    return f"{timed.p50_s * 1000:.1f}, {timed.p99_s * 1000:.1f}"
