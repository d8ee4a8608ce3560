"""What is done to a server, each a coroutine that does harm and mends it again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx

from tests.chaos.harm import Fault
from tests.e2e.one_machine.fleets import FleetServer
from tests.e2e.one_machine.running import descendants

DISK_MIB = 48
DISK_MIB_PER_S = 0.25
"""Twice what is kept of 100 jobs a second."""

HELD_S = (0.5, 8.0)
"""Longer than SQLite's busy timeout is part of it."""


async def _kill_server(server: FleetServer, draw: random.Random) -> str:
    """As a power cut: the server and, by their bond to it, its workers."""
    await asyncio.to_thread(server.kill)
    down_s = draw.uniform(0.0, 1.5)
    await asyncio.sleep(down_s)
    await asyncio.to_thread(server.start)
    return f"down for {down_s:.1f} s"


async def _stop_server(server: FleetServer, draw: random.Random) -> str:
    """As an update does: SIGTERM, and a start."""
    await asyncio.to_thread(server.stop, signal.SIGTERM)
    await asyncio.to_thread(server.start)
    return ""


async def _pause_server(server: FleetServer, draw: random.Random) -> str:
    """As a machine that was suspended: for the server all clocks jump ahead at once."""
    paused_s = draw.uniform(0.5, 4.0)
    os.kill(server.pid, signal.SIGSTOP)
    await asyncio.sleep(paused_s)
    os.kill(server.pid, signal.SIGCONT)
    return f"for {paused_s:.1f} s"


async def _kill_triton(server: FleetServer, draw: random.Random) -> str:
    tritons = server.tritons()
    if not tritons:
        return "none ran"
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(tritons), signal.SIGKILL)
    return ""


async def _kill_backend(server: FleetServer, draw: random.Random) -> str:
    """The process in which Triton runs the model."""
    backends = [pid for triton in server.tritons() for pid in descendants(triton)]
    if not backends:
        return "none ran"
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(backends), signal.SIGKILL)
    return ""


async def _hang_triton(server: FleetServer, draw: random.Random) -> str:
    tritons = server.tritons()
    if not tritons:
        return "none ran"
    pid, hung_s = draw.choice(tritons), draw.uniform(0.5, 5.0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(hung_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return f"for {hung_s:.1f} s"


def _disturb(**faults: object) -> Callable[[FleetServer, random.Random], Awaitable[str]]:
    async def do(server: FleetServer, draw: random.Random) -> str:
        lasting_s = draw.uniform(0.5, 3.0)
        with server.disturbed(draw.choice(["a", "b"]), **faults):
            await asyncio.sleep(lasting_s)
        return f"for {lasting_s:.1f} s"

    return do


async def _lock_database(server: FleetServer, draw: random.Random) -> str:
    """As somebody with a shell on the database would."""
    held_s = draw.uniform(*HELD_S)
    connection = sqlite3.connect(server.data_dir / "jobs.db", timeout=30.0, check_same_thread=False)
    try:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(held_s)
        connection.rollback()
    finally:
        connection.close()
    return f"for {held_s:.1f} s"


async def _fill_disk(server: FleetServer, draw: random.Random) -> str:
    """Another program takes all the space there is, and gives it back."""
    ballast, lasting_s = server.data_dir / "ballast", draw.uniform(0.5, 3.0)
    await asyncio.to_thread(_fill, ballast)
    await asyncio.sleep(lasting_s)
    ballast.unlink()
    return f"for {lasting_s:.1f} s"


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


ALWAYS = (
    Fault("kill-server", _kill_server),
    Fault("stop-server", _stop_server),
    Fault("pause-server", _pause_server),
    Fault("kill-triton", _kill_triton),
    Fault("kill-backend", _kill_backend),
    Fault("hang-triton", _hang_triton),
    Fault("slow-worker", _disturb(slow_factor=10.0)),
    Fault("hanging-worker", _disturb(hang=True)),
    Fault("erring-worker", _disturb(error="engine failed: out of order")),
    Fault("locked-database", _lock_database),
)
ON_SMALL_DISK = Fault("full-disk", _fill_disk)


@contextlib.contextmanager
def small_disk(folder: Path, seconds: float) -> Iterator[bool]:
    """A folder of few MiB, so that a disk can be filled; False if this user may not mount one.

    What a soak of so many seconds keeps of its jobs does not fill it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size_mib = DISK_MIB + math.ceil(seconds * DISK_MIB_PER_S)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def wait_healthy(server: FleetServer, patience_s: float = 30.0) -> None:
    """Return once the server and its workers say that all is well."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health").json()["status"] == "ok":
                return
        time.sleep(0.1)
