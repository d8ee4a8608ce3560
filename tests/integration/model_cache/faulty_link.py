"""A model store over HTTP whose answers go wrong where a test says so."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from bench.link import Asked, Handler, LinkServer
from synapse_worker.cache.manifest import Manifest
from synapse_worker.cache.publishing import Edition, publish

PART_BYTES = 64 << 10
MODEL = "model"


@dataclass(frozen=True)
class Fault:
    """What happens to one answer. `act` runs before its bytes are sent, in eighths with pauses."""

    status: HTTPStatus | None = None
    headers: tuple[tuple[str, str], ...] = ()
    cut_after: int | None = None
    corrupt: bool = False
    hang: bool = False
    pause_s: float = 0.0
    act: Callable[[], None] = lambda: None


Plan = Callable[[int, Asked], Fault | None]
"""The fault of the nth answer (from 1) for a file of the model; manifests are not counted."""


class FaultyHandler(Handler):
    """Answers as the plan says."""

    server: FaultyLink

    def refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.server.refused.append(status)
        super().refuse(status, headers)

    def answer(self, asked: Asked, file: int) -> None:
        fault = self.server.fault(asked)
        if fault is None:
            return super().answer(asked, file)
        fault.act()
        if fault.status is not None:
            return self.refuse(fault.status, dict(fault.headers))
        if fault.corrupt:
            self.begin()
            content = bytearray(os.pread(file, asked.length, asked.start))
            content[len(content) // 2] ^= 1
            self.connection.sendall(content)
        elif fault.pause_s:
            self.begin()
            step = asked.length // 8 + 1
            for at in range(0, asked.length, step):
                self.send(file, asked.start + at, min(step, asked.length - at))
                time.sleep(fault.pause_s)
        elif fault.cut_after is not None or fault.hang:
            self.begin()
            self.send(file, asked.start, fault.cut_after or 0)
            if fault.hang:
                self.server.released.wait()
            self.close_connection = True
        else:
            super().answer(asked, file)


class FaultyLink(LinkServer):
    """A link with a plan of faults."""

    def __init__(self, folder: Path, rate: float = 0.0) -> None:
        super().__init__(folder, rate, handler=FaultyHandler)
        self.plan: Plan = lambda number, asked: None
        self.released = threading.Event()
        self.refused: list[HTTPStatus] = []
        self._count = 0
        self._lock = threading.Lock()

    @property
    def parts_asked(self) -> list[Asked]:
        """Ranges of the model's files, in the order they were asked for."""
        return [asked for asked in self.asked if asked.path.endswith(".bin")]

    def fault(self, asked: Asked) -> Fault | None:
        if not asked.path.endswith(".bin"):
            return None
        with self._lock:
            self._count += 1
            return self.plan(self._count, asked)


@contextlib.contextmanager
def serving(link: FaultyLink) -> Iterator[FaultyLink]:
    thread = threading.Thread(target=link.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield link
    finally:
        link.released.set()
        link.shutdown()
        thread.join()
        link.server_close()


def publish_model(
    store: Path, parts: int = 8, name: str = MODEL, version: str | None = None, seed: int = 0
) -> Manifest:
    """A model of so many parts in one file, besides a small and an empty one."""
    source = store.parent / f"source-{name}-{version}-{seed}"
    (source / "1").mkdir(parents=True)
    (source / "1" / "weights.bin").write_bytes(content(parts, seed))
    (source / "config.pbtxt").write_text(f'name: "{name}"\n')
    (source / "empty").touch()
    return publish(source, str(store), Edition(name, version, part_bytes=PART_BYTES))


def content(parts: int, seed: int = 0) -> bytes:
    """Not the same in any two parts; the last part is short."""
    block = b"".join(
        (seed * 1_000_003 + number).to_bytes(8, "big") * (PART_BYTES // 8)
        for number in range(parts)
    )
    return block[: len(block) - 1000]
