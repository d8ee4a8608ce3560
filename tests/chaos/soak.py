"""A real server under load and under faults, with a look at all that was promised now and then."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from tests.chaos.books import of_sqlite
from tests.chaos.faults import ALWAYS, ON_SMALL_DISK, small_disk, wait_healthy
from tests.chaos.harm import Fault, Soaked
from tests.chaos.oracle import Asked, Oracle
from tests.e2e.one_machine.fleets import QUICK, EchoPool, FleetServer

CALLERS = 8
CALM_S = (0.2, 1.5)
LOOK_EVERY = 4
"""Faults between two looks."""

PATIENCE_S = 120.0
POOLS = (
    EchoPool("a", price=1.0, delay_ms=10, least=2, most=2),
    EchoPool("b", price=2.0, delay_ms=5, least=1, most=1),
)
KINDS = {fault.name: fault for fault in (*ALWAYS, ON_SMALL_DISK)}


async def soak(
    folder: Path,
    seed: int,
    seconds: float,
    names: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Soaked:
    """Run for so long; the same seed does the same faults in the same order.

    Raises:
        Violation: a promise was broken.
    """
    with small_disk(folder / "disk", seconds) as is_small:
        if not is_small:
            say("no disk is filled: mounting a small one needs root")
        kinds = [KINDS[name] for name in names] or list(ALWAYS)
        if is_small and not names:
            kinds.append(ON_SMALL_DISK)
        kinds = [kind for kind in kinds if is_small or kind is not ON_SMALL_DISK]
        server = FleetServer(folder / "disk", *POOLS, times=QUICK, auth="on")
        server.log = folder / "server.log"
        try:
            server.start()
            return await _soak(server, random.Random(seed), seconds, kinds, say)
        finally:
            server.close()


async def _soak(
    server: FleetServer,
    draw: random.Random,
    seconds: float,
    kinds: Sequence[Fault[FleetServer]],
    say: Callable[[str], None],
) -> Soaked:
    soaked = Soaked()
    oracle = Oracle(_asked(server), random.Random(draw.random()))
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=4 * CALLERS)
    async with httpx.AsyncClient(timeout=30.0, limits=limits) as client:
        while time.monotonic() < until:
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(oracle.keep_sending(client, stop))
                for _ in range(LOOK_EVERY):
                    await asyncio.sleep(draw.uniform(*CALM_S))
                    await soaked.harm(server, kinds, draw, say)
                await asyncio.to_thread(wait_healthy, server)
                stop.set()
            await oracle.check(client, PATIENCE_S)
            soaked.note(oracle, say)
    return soaked


def _asked(server: FleetServer) -> Asked:
    return Asked(
        server.url,
        free=server.new_key(),
        metered=server.new_key("--concurrent-jobs", "1000000", "--monthly-usd", "1000000"),
        read=lambda: of_sqlite(server.data_dir / "jobs.db"),
    )
