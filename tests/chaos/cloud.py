"""The deployed application on an emulator of AWS, and what is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synapse_worker.stubs import children
from tests.chaos.harm import Fault
from tests.e2e import sam
from tests.e2e.emulator import Emulator
from tests.e2e.lasting import LastingEmulator
from tests.e2e.stack import STACK, Stack
from tests.e2e.worker import Worker, worker

PUSH_EVERY_S = 10.0
"""So long it takes here until a function runs that has to be started anew."""

LONGER_THAN_CLIENTS_WAIT_S = (10.5, 13.0)
"""The functions' AWS clients wait ten seconds for an answer, and ask again."""


@dataclass
class Cloud:
    """What was deployed, and what it runs on. `happened` counts the calls that were harmed."""

    machine: LastingEmulator
    worker: Worker
    happened: Counter[str] = field(default_factory=Counter)
    _pushed_at: float = -PUSH_EVERY_S

    @property
    def emulator(self) -> Emulator:
        """MiniStack as it runs now."""
        return self.machine.emulator

    @property
    def stack(self) -> Stack:
        """The application."""
        return Stack(self.emulator)

    async def push(self, seconds: float) -> None:
        """Let time pass, and do what is done each minute; not more often than there is time for."""
        if time.monotonic() - self._pushed_at < PUSH_EVERY_S:
            return
        self._pushed_at = time.monotonic()
        self.machine.pass_time(seconds)
        # It may find that a worker is down, or be ended by a fault: the next one will do.
        with contextlib.suppress(AssertionError, OSError):
            await asyncio.to_thread(self.stack.invoke, "PingFunctionArn", {})

    def harm(self, rates: Mapping[str, float], seed: int = 0) -> None:
        """Have that share of the functions' AWS calls go wrong from now on."""
        self.happened.update(self.emulator.harm(rates, seed))


async def _cut_power(cloud: Cloud, draw: random.Random) -> str:
    """All of AWS but what it keeps: functions, executions and requests end where they are."""
    down_s = draw.uniform(0.0, 2.0)
    await asyncio.to_thread(cloud.machine.cut_power)
    await asyncio.sleep(down_s)
    await asyncio.to_thread(cloud.machine.start)
    return f"down for {down_s:.1f} s"


async def _freeze(cloud: Cloud, draw: random.Random) -> str:
    """AWS takes calls and answers none; what it was asked it does afterwards, for nobody."""
    frozen_s = draw.uniform(*LONGER_THAN_CLIENTS_WAIT_S)
    cloud.machine.freeze()
    await asyncio.sleep(frozen_s)
    cloud.machine.thaw()
    return f"for {frozen_s:.1f} s"


async def _kill_functions(cloud: Cloud, draw: random.Random) -> str:
    """Half of the environments in which functions run, whatever they are doing."""
    found = children(cloud.emulator.daemon.process.pid)
    chosen = draw.sample(found, (len(found) + 1) // 2)
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"{len(chosen)} of {len(found)}"


async def _kill_triton(cloud: Cloud, draw: random.Random) -> str:
    with contextlib.suppress(RuntimeError, ProcessLookupError):
        cloud.worker.kill_triton()
        return ""
    return "none ran"


async def _jump(cloud: Cloud, draw: random.Random) -> str:
    """Clocks of all functions, amid what they do: leases end under those that hold them."""
    seconds = draw.uniform(20.0, 150.0)
    cloud.machine.pass_time(seconds)
    return f"{seconds:.0f} s ahead"


def _harm(**rates: float) -> Callable[[Cloud, random.Random], Awaitable[str]]:
    async def do(cloud: Cloud, draw: random.Random) -> str:
        lasting_s = draw.uniform(6.0, 15.0)
        await asyncio.to_thread(cloud.harm, rates, draw.randrange(1 << 30))
        await asyncio.sleep(lasting_s)
        await asyncio.to_thread(cloud.harm, {})
        return f"for {lasting_s:.1f} s"

    return do


CLOUD_FAULTS = {
    fault.name: fault
    for fault in (
        Fault("cut-power", _cut_power),
        Fault("freeze", _freeze),
        Fault("kill-functions", _kill_functions),
        Fault("kill-triton", _kill_triton),
        Fault("jump", _jump),
        Fault("throttled-calls", _harm(throttled=0.5)),
        Fault("broken-calls", _harm(broken=0.15, lost=0.15, slow=0.2)),
        Fault("unruly-messages", _harm(twice=0.4, late=0.3, partial=0.3)),
    )
}


@contextlib.contextmanager
def deployed(folder: Path) -> Iterator[Cloud]:
    """The template, built and deployed as users do, in front of a real worker that serves echo."""
    for name in ("worker", "emulator"):
        (folder / name).mkdir(parents=True)
    with worker(folder / "worker", "echo") as triton:
        machine = LastingEmulator(folder / "emulator")
        try:
            emulator = machine.emulator
            built = sam.build(folder / "build", sam.python_version(emulator.python))
            parameters = {"EngineUrl": triton.grpc_address, "EngineAccelerator": "cpu"}
            sam.deploy(built, emulator.url, STACK, parameters)
            Stack(emulator).complete_api(built)
            yield Cloud(machine, triton)
        finally:
            machine.close()
