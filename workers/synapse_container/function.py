"""A worker with the runner in front of it: a Lambda function's container.

Two children, the worker and the runtime client, which on managed instances forks as many times as
the environment takes events at once; all of them share the one engine. If either child ends, so
does the container, and Lambda makes another: a runtime without an engine would refuse every batch
for as long as it lives.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

STOP_TIMEOUT_S = 65.0
WORKER = (sys.executable, "-m", "synapse_container", "engine")
RUNTIME = (sys.executable, "-m", "awslambdaric", "synapse_container.handler.handler")


async def run_function(worker: Sequence[str] = WORKER, runtime: Sequence[str] = RUNTIME) -> str:
    """Run both until a signal comes; which one has ended by itself, or nothing."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    children = [await asyncio.create_subprocess_exec(*command) for command in (worker, runtime)]
    waiting = [asyncio.create_task(child.wait()) for child in children]
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({*waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # The runtime first: it takes no more, and what it has wants the engine.
    for child, ended in zip(reversed(children), reversed(waiting), strict=True):
        await _end(child, ended)
    return "" if stopped.is_set() else "the worker or the runtime client has ended"


async def _end(child: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    if ended.done():
        return
    child.terminate()
    await asyncio.wait({ended}, timeout=STOP_TIMEOUT_S)
    if not ended.done():
        child.kill()
        await ended
