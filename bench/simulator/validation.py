"""Whether the simulator is right: the one machine measured and predicted, in one run.

Rounds take turns: first what the simulator has to know (`calibration`), then callers without
bronze, then with it. Beside each round stands how late the machine itself was.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

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
from bench.tiers import SETTLE_S, TWO_POOLS, WARM_UP_S, Load, Phase
from synapse.domain.job import SlaTier

SHARES = (0.5, 0.99)

QUIET = 0.5
"""Cores that others may take while a round is measured, for it to say something of the model."""


@dataclass(frozen=True, slots=True)
class Round:
    """Callers without bronze and with it, bronze alone, and the machine meanwhile."""

    without: Phase
    beside: Phase
    bronze_alone_per_s: float
    quiet: Control
    busy: Control

    @property
    def is_disturbed(self) -> bool:
        """Whether others had more of the processors meanwhile than the model can know."""
        taken = (each.others_cores + each.stolen_cores for each in (self.quiet, self.busy))
        return any(cores > QUIET for cores in taken)


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure: predicted, of all rounds together, and of each round."""

    what: str
    predicted: float
    measured: float
    rounds: Sequence[float]

    @property
    def off(self) -> float:
        """How far the prediction is from what was measured: 0.1 is 10 % more."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Validation:
    """All of it."""

    figures: Figures
    rounds: Sequence[Round]
    compared: Sequence[Compared]


def measure(seconds: float = 6.0, rounds: int = 2, seed: int = 1) -> Validation:
    """Run a server, measure, and predict it from what was measured apart."""
    with server(TWO_POOLS.models, TWO_POOLS.pools) as running, Watch() as watch:
        calibration = Calibration.empty()

        async def all_rounds() -> list[Round]:
            connector = aiohttp.TCPConnector(limit=1000)
            async with aiohttp.ClientSession(running.url, connector=connector) as session:
                load = Load(session, TWO_POOLS)
                await load.phase(WARM_UP_S, seed=0, bronze_on=False)
                found = []
                for number in range(rounds):
                    await calibration.add(load, running.pid)
                    found.append(await _round(load, seconds, number + 1, watch))
                return found

        measured = uvloop.run(all_rounds())
    figures = calibration.figures()
    predicted = predict(seconds, rounds, seed, figures)
    return Validation(figures, measured, _compared(predicted, measured))


async def _round(load: Load, seconds: float, number: int, watch: Watch) -> Round:
    alone_per_s = await load.bronze_alone_per_s(seconds)
    without, quiet = await _watched(watch, load.phase(seconds, seed=number, bronze_on=False))
    async with load.backlog(math.ceil(alone_per_s * (SETTLE_S + seconds))):
        await load.phase(SETTLE_S, seed=0, bronze_on=True)
        beside, busy = await _watched(watch, load.phase(seconds, seed=number, bronze_on=True))
    return Round(without, beside, alone_per_s, quiet, busy)


async def _watched(watch: Watch, phase: Coroutine[Any, Any, Phase]) -> tuple[Phase, Control]:
    watch.begin()
    own_s = processor_s(os.getpid())
    found = await phase
    return found, watch.end(processor_s(os.getpid()) - own_s)


def _compared(predicted: Predicted, rounds: Sequence[Round]) -> list[Compared]:
    found = [
        _times(predicted, rounds, tier, share, bronze_on=bronze_on)
        for bronze_on in (False, True)
        for tier in (SlaTier.GOLD, SlaTier.SILVER)
        for share in SHARES
    ]
    alone = [each.bronze_alone_per_s for each in rounds]
    beside = [each.beside.bronze_per_s for each in rounds]
    return [
        *found,
        Compared(
            "bronze alone, jobs/s", predicted.bronze_alone_per_s, statistics.median(alone), alone
        ),
        Compared(
            "bronze beside, jobs/s",
            predicted.bronze_beside_per_s,
            statistics.median(beside),
            beside,
        ),
    ]


def _times(
    predicted: Predicted, rounds: Sequence[Round], tier: SlaTier, share: float, *, bronze_on: bool
) -> Compared:
    phases = [each.beside if bronze_on else each.without for each in rounds]
    of_rounds = [percentile(sorted(phase.latencies_ms[tier]), share) for phase in phases]
    together = sorted(ms for phase in phases for ms in phase.latencies_ms[tier])
    what = f"{tier}, p{share * 100:.0f}, {'beside bronze' if bronze_on else 'without bronze'}, ms"
    return Compared(
        what,
        predicted.ms(tier, share, bronze_on=bronze_on),
        percentile(together, share),
        of_rounds,
    )


def show(found: Validation) -> None:
    """As tables."""
    print("The one machine, predicted from what was measured apart in the same run\n")
    tables.head("figure", "predicted", "measured", "off", "of each round")
    for each in found.compared:
        rounds = ", ".join(f"{value:.1f}" for value in each.rounds)
        tables.row(
            *(each.what, f"{each.predicted:.1f}", f"{each.measured:.1f}"),
            *(f"{each.off:+.0%}", rounds),
        )
    print()
    tables.head("phase", "timers late, p99, ms", "cores used by others", "stolen by the host")
    for number, of_round in enumerate(found.rounds):
        phases = (("without bronze", of_round.quiet), ("beside bronze", of_round.busy))
        for name, control in phases:
            tables.row(
                f"{number + 1}, {name}",
                f"{control.late_ms:.1f}",
                f"{control.others_cores:.2f}",
                f"{control.stolen_cores:.2f}",
            )
    disturbed = sum(each.is_disturbed for each in found.rounds)
    if disturbed:
        print(f"\n{disturbed} of {len(found.rounds)} rounds were disturbed: others took more than")
        print(f"{QUIET} cores. They say little of the model: run it again on a quieter machine.")
    print("\nMeasured apart, and put in:\n")
    tables.head("what", "p50, p99, ms")
    for pool, work in found.figures.work.items():
        tables.row(f"an item on the engine of pool {pool}", _ms(work))
    tables.row("what lies around it for a caller", _ms(found.figures.around))
    tables.row("what an item takes of the server's thread", f"{found.figures.thread_s * 1000:.2f}")
    print()


def _ms(timed: Timed) -> str:
    return f"{timed.p50_s * 1000:.1f}, {timed.p99_s * 1000:.1f}"
