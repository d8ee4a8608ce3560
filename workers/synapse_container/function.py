"""A worker with the runner in front of it: a Lambda function's container.

Two children, the worker and the runtime client, which on managed instances forks as many times as
the environment takes events at once; all of them share the one engine. A worker that ends is
started again, and until then the runtime says that there is no engine, so that batches go to the
next pool: if the container ended instead, Lambda would tell that a worker was lost with them. One
that ends over and over ends the container, and Lambda makes another.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 65.0
STARTS = 5
"""So often in a row a worker is started here; then another environment may do better."""

LONG_LIFE_S = 3600.0
"""Who has lived so long had come up, longer than its engine may take: starts count anew."""

RESTART_AFTER_S = 5.0
ENDED = "SYNAPSE_ENGINE_ENDED"
"""The variable that names a file, which is there while no worker runs."""

SHM_FILES = Path("/opt/shm_files.so")
"""What `workers/shm` becomes in the image."""

WORKER = (sys.executable, "-m", "synapse_container", "engine")
RUNTIME = (sys.executable, "-m", "awslambdaric", "synapse_container.handler.handler")


async def run_function(worker: Sequence[str] = WORKER, runtime: Sequence[str] = RUNTIME) -> str:
    """Run both until a signal comes; which one has ended by itself, or nothing."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with tempfile.TemporaryDirectory() as folder:
        ended = Path(folder) / "engine-ended"
        client = await asyncio.create_subprocess_exec(
            *runtime, env={**os.environ, ENDED: str(ended)}
        )
        answering = asyncio.create_task(client.wait())
        working = asyncio.create_task(_keep_up(worker, ended))
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({working, answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        # The runtime first: it takes no more, and what it has wants the engine.
        await _end(client, answering)
        working.cancel()
        await asyncio.wait({working})
    return "" if stopped.is_set() else "the worker or the runtime client has ended"


async def _keep_up(command: Sequence[str], ended: Path) -> None:
    """Run the worker, again when it ends, until it has done so too often; end it if cancelled."""
    starts = 0
    while starts < STARTS:
        starts, begun_at = starts + 1, time.monotonic()
        child = await asyncio.create_subprocess_exec(*command, env=worker_environment(os.environ))
        ended.unlink(missing_ok=True)
        waiting = asyncio.create_task(child.wait())
        try:
            await asyncio.shield(waiting)
        finally:
            await _end(child, waiting)
        ended.touch()
        if time.monotonic() - begun_at >= LONG_LIFE_S:
            starts = 0
        await asyncio.sleep(RESTART_AFTER_S)


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
