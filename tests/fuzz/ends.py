"""What must hold once all has been sent: nothing open, nothing told, nothing broken."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.one_machine.running import FINAL, Server
from tests.fuzz.stage import Stage

PATIENCE_S = 150.0
"""Jobs that may wait do so for a minute, and may then be behind each other."""

SAMPLE_EVERY_S = 0.5
MAX_GROWTH_BYTES = 6_000
"""Of resident memory for each input of the second half: what is kept of one is less."""

SECRETS = re.compile(r"sk-syn-[0-9A-Za-z]{20,}|whsec_[\w+/=]{8,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
BROKEN = ("Traceback (most recent call last)", "request failed", "never retrieved", "never awaited")


@dataclass
class Memory:
    """Resident bytes of the server's process over the inputs, sampled beside them."""

    server: Server
    samples: list[tuple[int, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def sample(self, inputs: int) -> None:
        """Note how much it is after so many inputs."""
        pages = int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1])
        self.samples.append((inputs, pages * os.sysconf("SC_PAGE_SIZE")))

    @property
    def least(self) -> int:
        return self.samples[0][1]

    @property
    def most(self) -> int:
        return max(size for _, size in self.samples)

    @property
    def last(self) -> int:
        return self.samples[-1][1]

    def growth(self) -> float:
        """Bytes for each input of the second half."""
        total, last = self.samples[-1]
        half = next((sample for sample in self.samples if sample[0] >= total / 2), (0, last))
        return (last - half[1]) / max(1, total - half[0])


def never_ended(stage: Stage) -> dict[str, int]:
    """Jobs and batches that were accepted and have not ended, by state; waits for them first."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _open(stage.server.data_dir / "jobs.db")) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def accepted_jobs(stage: Stage) -> int:
    """All there are records of."""
    with sqlite3.connect(stage.server.data_dir / "jobs.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return count


def _open(file: Path) -> dict[str, int]:
    with sqlite3.connect(file) as connection:
        jobs = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        batches = connection.execute("SELECT count(*) FROM file_batches WHERE is_open").fetchone()[
            0
        ]
    left = {f"jobs {state}": n for state, n in jobs.items() if state not in FINAL}
    return left | ({"batches": batches} if batches else {})


def is_alive(stage: Stage, pid: int) -> bool:
    """The same process as at the start answers, and serves a job."""
    health = httpx.get(f"{stage.server.url}/health", timeout=30)
    key = stage.callers["owner"].headers
    body = {"model": "echo", "prompt": "still there?"}
    answer = httpx.post(f"{stage.server.url}/v1/completions", json=body, headers=key, timeout=30)
    return stage.server.pid == pid and health.json()["status"] == "ok" and answer.is_success


def told_in_logs(stage: Stage) -> list[str]:
    """Secrets, prompts and failures in what the server and its workers wrote."""
    faults = []
    files = [stage.server.log, *stage.server.data_dir.rglob("*.log")]
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        faults += [f"{file.name}: {mark!r}" for mark in BROKEN if mark in text]
        faults += [
            f"{file.name}: a canary of {who}"
            for who, mark in stage.canaries.items()
            if mark in text
        ]
        known = [secret for secret in stage.secrets if secret in text]
        faults += [f"{file.name}: a secret that was given out, {known[0][:10]}…"] if known else []
        faults += [
            f"{file.name}: {found[:12]}…" for found in _others(text, file == stage.server.log)
        ]
    return sorted(set(faults))


def _others(text: str, is_first: bool) -> Sequence[str]:
    """What looks like a secret, but for the first start's key, which is printed to be used."""
    found = SECRETS.findall(text)
    return [each for each in found if not (is_first and each == found[0])]
