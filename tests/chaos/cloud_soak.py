"""The deployed application under load and under faults, as `soak` does it to one machine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from synapse.domain.access import Limits
from tests.chaos.cloud import CLOUD_FAULTS, Cloud, deployed
from tests.chaos.cloud_books import of_cloud
from tests.chaos.harm import Fault, Soaked
from tests.chaos.oracle import Asked, Oracle, Violation

CALLERS = 5
CALM_S = (0.0, 4.0)
ENOUGH = 6
"""Jobs accepted between two faults; functions that were ended take their time to come up again."""

LOOK_EVERY = 2
"""Faults between two looks."""

PATIENCE_S = 300.0
REQUEST_TIMEOUT_S = 45.0
PLENTY = Limits(concurrent_jobs=1_000_000, monthly_usd=1_000_000.0)


def soak_cloud(
    folder: Path, seed: int, seconds: float, names: Sequence[str], say: Callable[[str], None]
) -> Soaked:
    """Deploy, and run for so long; the same seed does the same faults in the same order.

    Raises:
        Violation: a promise was broken.
    """
    kinds = [CLOUD_FAULTS[name] for name in names] or list(CLOUD_FAULTS.values())
    with deployed(folder) as cloud:
        say("deployed")
        return asyncio.run(_soak(cloud, random.Random(seed), seconds, kinds, say))


async def _soak(
    cloud: Cloud,
    draw: random.Random,
    seconds: float,
    kinds: Sequence[Fault[Cloud]],
    say: Callable[[str], None],
) -> Soaked:
    soaked = Soaked()
    oracle = Oracle(await asyncio.to_thread(_asked, cloud), random.Random(draw.random()))
    until = time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
        while time.monotonic() < until:
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(oracle.keep_sending(client, stop))
                for _ in range(LOOK_EVERY):
                    await _accepted(oracle, ENOUGH)
                    await asyncio.sleep(draw.uniform(*CALM_S))
                    await soaked.harm(cloud, kinds, draw, say)
                stop.set()
            await oracle.check(client, PATIENCE_S)
            soaked.note(oracle, say)
    say(f"calls that were harmed: {dict(cloud.happened)}")
    return soaked


async def _accepted(oracle: Oracle, more: int) -> None:
    """Wait until so many more jobs were accepted."""
    enough, deadline = len(oracle.accepted) + more, time.monotonic() + PATIENCE_S
    while len(oracle.accepted) < enough:
        if time.monotonic() > deadline:
            raise Violation(f"no {more} jobs were accepted within {PATIENCE_S:g} s")
        await asyncio.sleep(0.1)


def _asked(cloud: Cloud) -> Asked:
    stack = cloud.stack
    metered = stack.new_key(limits=PLENTY)
    return Asked(
        stack.url,
        free=stack.api_key,
        metered=metered,
        read=lambda: of_cloud(cloud, metered),
        # What API Gateway answers for a function that failed or came to its end.
        again=frozenset({429, 500, 502, 503, 504}),
        push=cloud.push,
        pause_s=(0.05, 0.5),
        timeout_s=5000.0,
    )
