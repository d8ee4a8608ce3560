"""A whole run: every peer in every round, in turns; kept after each, whatever becomes of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import uvloop

from bench.peers.catalogue import Peer
from bench.peers.crash import crash
from bench.peers.measure import measure
from bench.peers.plan import Plan, crashes_s, reckoned_s
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

    def rounds(self, workload: str, plan: Plan, peers: Sequence[Peer], rounds: int) -> None:
        """Every peer in turns, every second round from the last to the first: drifts cancel out."""
        until = time.monotonic() + (1 + REPEATS_SHARE) * reckoned_s(plan, peers, rounds)
        for number in range(rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                one = self.results.of(workload, peer.name)
                if number in one.rounds:
                    continue
                self._say(f"{workload}, round {number + 1} of {rounds}: {peer.name}")
                limit_s = START_S + PATIENCE * plan.round_s(peer)
                found = _survive(partial(self.measure, peer, workload, plan, until), limit_s)
                if isinstance(found, Round):
                    one.rounds[number] = found
                self._keep(one, found)

    def crashes(self, workload: str, plan: Plan, peers: Sequence[Peer]) -> None:
        """End each peer with kill -9, where the plan has it."""
        for peer in peers if plan.killed else ():
            one = self.results.of(workload, peer.name)
            if one.crash is not None:
                continue
            self._say(f"{workload}: kill -9 of {peer.name}")
            limit_s = 2 * START_S + PATIENCE * plan.crash_s(peer)
            found = _survive(partial(self.crash, peer, workload, plan.killed), limit_s)
            if isinstance(found, Crash):
                one.crash = found
            self._keep(one, found)

    def _keep(self, one: Measured, found: Round | Crash | Exception) -> None:
        if isinstance(found, Exception):
            one.failures.append(f"{type(found).__name__}: {found}")
            self._say(one.failures[-1])
        self.results.save(self.file)

    def _say(self, text: str) -> None:
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


def reckoned_text(plans: dict[str, tuple[Plan, Sequence[Peer]]], rounds: int) -> str:
    """How long a run will take, workload by workload."""
    parts, total_s = [], 0.0
    for workload, (plan, peers) in plans.items():
        needs_s = reckoned_s(plan, peers, rounds) + crashes_s(plan, peers)
        total_s += needs_s
        parts.append(f"{workload} {needs_s / 60:.1f}")
    more = f"{total_s * (1 + REPEATS_SHARE) / 60:.0f} where neighbours disturb it"
    return f"Reckoned: {total_s / 60:.0f} minutes ({', '.join(parts)}), up to {more}"


def _survive(work: Callable[[], Awaitable[Found]], limit_s: float) -> Found | Exception:
    """What came of it, or why nothing did: no peer ends a run."""

    async def within() -> Found:
        async with asyncio.timeout(limit_s):
            return await work()

    try:
        return uvloop.run(within())
    except Exception as error:  # noqa: BLE001 - whatever a peer does, the next one has its turn
        return error
