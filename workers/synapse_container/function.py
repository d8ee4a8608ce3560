"""A worker with the runner in front of it: a Lambda function's container.

Two children, the worker and the runtime client, which on managed instances forks as many times as
the environment takes events at once; all of them share the one engine. If either child ends, so
does the container, and Lambda makes another: a runtime without an engine would refuse every batch
for as long as it lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 65.0
SHM_FILES = Path("/opt/shm_files.so")
"""What `workers/shm` becomes in the image."""

WORKER = (sys.executable, "-m", "synapse_container", "engine")
RUNTIME = (sys.executable, "-m", "awslambdaric", "synapse_container.handler.handler")


async def run_function(worker: Sequence[str] = WORKER, runtime: Sequence[str] = RUNTIME) -> str:
    """Run both until a signal comes; which one has ended by itself, or nothing."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    children = [
        await asyncio.create_subprocess_exec(*worker, env=worker_environment(os.environ)),
        await asyncio.create_subprocess_exec(*runtime),
    ]
    waiting = [asyncio.create_task(child.wait()) for child in children]
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({*waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # The runtime first: it takes no more, and what it has wants the engine.
    for child, ended in zip(reversed(children), reversed(waiting), strict=True):
        await _end(child, ended)
    return "" if stopped.is_set() else "the worker or the runtime client has ended"


def worker_environment(
    environ: Mapping[str, str],
    shm: Path = Path("/dev/shm"),
    preloaded: Path = SHM_FILES,
    folder: Path = Path("/tmp/shm"),
) -> dict[str, str]:
    """The engine's variables: where there is no shared memory, files stand in for it."""
    if os.access(shm, os.W_OK) or not preloaded.exists():
        return dict(environ)
    folder.mkdir(exist_ok=True)
    return {**environ, "LD_PRELOAD": str(preloaded), "SYNAPSE_SHM_DIR": str(folder)}


async def _end(child: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    if ended.done():
        return
    child.terminate()
    await asyncio.wait({ended}, timeout=STOP_TIMEOUT_S)
    if not ended.done():
        child.kill()
        await ended
