"""Fleets for the tests: pools of echo workers that take their time, and can be disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.e2e.one_machine.running import Server, finished, submit
from tests.patience import PATIENCE_S

T = TypeVar("T")

QUICK = {"beat_every_s": 0.1, "lease_s": 1.0, "hang_timeout_s": 2.5, "ping_every_s": 0.3}
"""Clocks that let a worker die and come back in seconds."""

CALM = {"ping_every_s": 0.3}
"""For workers that nobody harms: whatever the machine does meanwhile, they stay as they are."""


@dataclass(frozen=True)
class EchoPool:
    """A pool of workers that take `delay_ms` for an item, `slots` of them at once."""

    name: str
    price: float
    delay_ms: int
    accelerator: str = "cpu"
    slots: int = 8
    least: int = 1
    most: int = 1
    idle_after_s: float = 300.0
    more: str = ""

    def toml(self, faults: Path) -> str:
        return f"""
[[pool]]
name = "{self.name}"
accelerator = "{self.accelerator}"
price_per_hour_usd = {self.price}
models = ["echo"]
min_workers = {self.least}
max_workers = {self.most}
idle_after_s = {self.idle_after_s}
startup_s = 5
{self.more}
[pool.slots]
echo = {self.slots}
[pool.model_parameters.echo]
delay_ms = "{self.delay_ms}"
slots = "{self.slots}"
faults_file = "{faults}"
"""


class FleetServer(Server):
    """A server with pools, which knows their Tritons."""

    def __init__(
        self, folder: Path, *pools: EchoPool, times: dict[str, float], auth: str = "off"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "pools.toml"
        self._folder = folder
        text = "".join(pool.toml(self._faults(pool.name)) for pool in pools)
        clocks = "".join(f"{key} = {value}\n" for key, value in times.items())
        file.write_text(f"{text}\n[times]\n{clocks}", encoding="utf-8")
        super().__init__(folder / "data", "echo", "--pools", str(file), auth=auth)

    def tritons(self, pool: str = "") -> list[int]:
        """The Triton processes of a pool's workers, or of all."""
        mark = f"/worker/{pool}-" if pool else "/worker/"
        return [pid for pid in self.descendants() if _is_triton(pid) and mark in _command(pid)]

    @contextlib.contextmanager
    def disturbed(self, pool: str, **faults: Any) -> Iterator[None]:
        """The pool's workers are slow, hang or answer with errors meanwhile."""
        file = self._faults(pool)
        file.write_text(json.dumps(faults), encoding="utf-8")
        try:
            yield
        finally:
            file.unlink()

    def gauge(self, name: str, **labels: str) -> float:
        """A figure of /metrics: the sum of the samples that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith((f"{name}{{", f"{name} ")) and all(each in line for each in wanted)
        )

    def _faults(self, pool: str) -> Path:
        return self._folder / f"faults-{pool}.json"


def stop_process(pid: int) -> None:
    """Have a Triton hang: it lives, and does nothing."""
    os.kill(pid, signal.SIGSTOP)


def until(
    holds: Callable[[], Any],
    seconds: float = PATIENCE_S,
    why: str | Callable[[], str] = "it never came true",
    every_s: float = 0.1,
) -> None:
    """Look until it holds; each look may cost the server time that it needs to get there."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(every_s)


@contextlib.contextmanager
def watched(look: Callable[[], T]) -> Iterator[list[T]]:
    """What is seen meanwhile, one after the other: also what passes while one looks elsewhere."""
    seen: list[T] = []
    is_over = threading.Event()

    def keep_looking() -> None:
        while not is_over.wait(0.05):
            with contextlib.suppress(httpx.TransportError):
                if (now := look()) not in seen:
                    seen.append(now)

    watcher = threading.Thread(target=keep_looking, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()


@dataclass
class Traffic:
    """Jobs that come one after another while the test does harm; leave it to see what they became.

    `ended` are those that are known to have ended, in the order in which they were sent.
    """

    server: Server
    sla: str = "silver"
    every_s: float = 0.03
    ended: list[dict[str, Any]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _ids: list[str] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._sender = threading.Thread(target=self._send)
        self._reader = threading.Thread(target=self._read)
        self._sender.start()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait until all that was sent has ended."""
        self._stop.set()
        self._sender.join()
        self._reader.join()

    def until_in(self, pool: str) -> dict[str, Any]:
        """Wait until the pool has served a job that was sent from now on."""
        sent = len(self._ids)

        def served() -> list[dict[str, Any]]:
            return [job for job in self.ended[sent:] if job["pool"] == pool]

        until(served, why=f"no job came to pool {pool}: {self.pools()}")
        return served()[0]

    def pools(self) -> Counter[str]:
        """How many jobs each pool has served."""
        return Counter(job["pool"] for job in self.ended)

    def workers(self) -> Counter[str]:
        """How many jobs each worker has served."""
        return Counter(job["worker"] for job in self.ended)

    def states(self) -> Counter[str]:
        """How many jobs have ended in which way."""
        return Counter(job["status"] for job in self.ended)

    def _send(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self._stop.wait(self.every_s):
                prompt = f"job {len(self._ids)}"
                self._ids.append(submit(client, self.server.url, prompt, sla=self.sla))

    def _read(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while self._sender.is_alive() or len(self.ended) < len(self._ids):
                if len(self.ended) == len(self._ids):
                    time.sleep(0.005)
                    continue
                job_id = self._ids[len(self.ended)]
                self.ended.append(finished(client, self.server.url, job_id))


def _is_triton(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "tritonserver"
    return False


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""
