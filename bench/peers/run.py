"""A whole run: every peer in every round, in turns; kept after each, whatever becomes of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import uvloop

from bench.peers.catalogue import Peer
from bench.peers.crash import crash
from bench.peers.measure import measure
from bench.peers.plan import Plan
from bench.peers.results import Crash, Measured, Results, Round

REPEATS_SHARE = 0.2
"""Repeating what neighbours disturbed may lengthen a workload by this share, and no more."""

PATIENCE = 5.0
"""A peer that takes so many times what was reckoned, and the time to start, is given up."""

START_S = 120.0

MeasureOne = Callable[[Peer, str, Plan, float], Awaitable[Round]]
CrashOne = Callable[[Peer, str, int], Awaitable[Crash]]
Found = TypeVar("Found")


@dataclass(slots=True)
class Run:
    """What there is so far, where it is kept, and how a peer is measured."""

    results: Results
    file: Path
    measure: MeasureOne = measure
    crash: CrashOne = crash

    def reckoned_s(self, workload: str, plan: Plan, peers: Sequence[Peer], rounds: int) -> float:
        """How long it takes to measure what is missing."""
        loads_s = sum(plan.round_s(peer) for _, peer in self._rounds_due(workload, peers, rounds))
        due = self._crashes_due(workload, plan, peers)
        return loads_s + sum(plan.crash_s(peer) for peer in due)

    def rounds(self, workload: str, plan: Plan, peers: Sequence[Peer], rounds: int) -> None:
        """Every peer in turns, every second round from the last to the first: drifts cancel out."""
        due = self._rounds_due(workload, peers, rounds)
        until = time.monotonic() + (1 + REPEATS_SHARE) * sum(plan.round_s(peer) for _, peer in due)
        for number, peer in due:
            self._say(f"{workload}, round {number + 1} of {rounds}: {peer.name}")
            limit_s = START_S + PATIENCE * plan.round_s(peer)
            found = _survive(partial(self.measure, peer, workload, plan, until), limit_s)
            one = self.results.of(workload, peer.name)
            if isinstance(found, Round):
                one.rounds[number] = found
            self._keep(one, found)

    def crashes(self, workload: str, plan: Plan, peers: Sequence[Peer]) -> None:
        """End each peer with kill -9, where the plan has it."""
        for peer in self._crashes_due(workload, plan, peers):
            self._say(f"{workload}: kill -9 of {peer.name}")
            limit_s = 2 * START_S + PATIENCE * plan.crash_s(peer)
            found = _survive(partial(self.crash, peer, workload, plan.killed), limit_s)
            one = self.results.of(workload, peer.name)
            if isinstance(found, Crash):
                one.crashes.append(found)
            self._keep(one, found)

    def _rounds_due(
        self, workload: str, peers: Sequence[Peer], rounds: int
    ) -> list[tuple[int, Peer]]:
        """Round and peer of what is missing, in the order of its measurement."""
        known = self.results.measured.get(workload, {})
        return [
            (number, peer)
            for number in range(rounds)
            for peer in (peers if number % 2 == 0 else reversed(peers))
            if peer.name not in known or number not in known[peer.name].rounds
        ]

    def _crashes_due(self, workload: str, plan: Plan, peers: Sequence[Peer]) -> list[Peer]:
        """Each peer as often as it is still to be killed."""
        known = self.results.measured.get(workload, {})
        done = {name: len(one.crashes) for name, one in known.items()}
        return [
            peer for peer in peers for _ in range(done.get(peer.name, 0), plan.crashes_of(peer))
        ]

    def _keep(self, one: Measured, found: Round | Crash | Exception) -> None:
        if isinstance(found, Exception):
            one.failures.append(f"{type(found).__name__}: {found}")
            self._say(one.failures[-1])
        self.results.save(self.file)

    def _say(self, text: str) -> None:
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


def reckoned_text(needs_s: Mapping[str, float]) -> str:
    """How long a run will take, from what each workload needs."""
    total_s = sum(needs_s.values())
    parts = ", ".join(f"{workload} {each / 60:.1f}" for workload, each in needs_s.items())
    most = f"{total_s * (1 + REPEATS_SHARE) / 60:.0f} where others disturb it"
    return f"Reckoned: {total_s / 60:.0f} minutes ({parts}), up to {most}"


def _survive(work: Callable[[], Awaitable[Found]], limit_s: float) -> Found | Exception:
    """What came of it, or why nothing did: no peer ends a run."""

    async def within() -> Found:
        async with asyncio.timeout(limit_s):
            return await work()

    try:
        return uvloop.run(within())
    except Exception as error:  # noqa: BLE001 - whatever a peer does, the next one has its turn
        return error
