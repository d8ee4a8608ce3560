"""A file batch of 50,000 lines on a model that does nothing: its speed, and the memory it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import httpx

from bench.server import resident_mib, server

LINES = 50_000
FILLER = "x" * 500
"""Makes a line of about a kilobyte with what is around it, once asked and once answered."""

GIVE_UP_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Seconds of each phase, and memory of the server in MiB.

    `quarters` is the most memory in each quarter of the lines: flat, if it does not grow.
    """

    lines: int
    file_mib: float
    upload_s: float
    validate_s: float
    run_s: float
    finalize_s: float
    before_mib: float
    quarters: tuple[float, ...]

    @property
    def lines_per_s(self) -> float:
        """From the first line submitted to the last one answered."""
        return self.lines / self.run_s


def measure(lines: int = LINES) -> Batch:
    """Run one batch on a fresh server."""
    data = b"".join(_lines(lines))
    with server("echo") as running, httpx.Client(base_url=running.url, timeout=60) as client:
        before_mib = resident_mib(running.pid)
        started = time.perf_counter()
        form = {"file": ("in.jsonl", data)}
        file = client.post("/v1/files", files=form, data={"purpose": "batch"}).raise_for_status()
        uploaded = time.perf_counter()
        request = {
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        batch_id = client.post("/v1/batches", json=request).raise_for_status().json()["id"]
        entered = {"validating": time.perf_counter()}
        memory: list[tuple[int, float]] = []
        while (batch := client.get(f"/v1/batches/{batch_id}").json())["status"] != "completed":
            entered.setdefault(batch["status"], time.perf_counter())
            memory.append((batch["request_counts"]["completed"], resident_mib(running.pid)))
            if time.perf_counter() - started > GIVE_UP_AFTER_S:
                raise SystemExit(f"the batch did not end: {batch}")
            time.sleep(0.2)
        ended = time.perf_counter()
        if batch["request_counts"]["completed"] != lines:
            raise SystemExit(f"not every line was answered: {batch['request_counts']}")
    finalizing = entered.get("finalizing", ended)
    times = [started, uploaded, entered.get("in_progress", finalizing), finalizing, ended]
    upload_s, validate_s, run_s, finalize_s = (later - at for at, later in pairwise(times))
    size_mib = len(data) / 2**20
    quarters = tuple(
        max(mib for done, mib in memory if done <= lines * part / 4) for part in range(1, 5)
    )
    return Batch(lines, size_mib, upload_s, validate_s, run_s, finalize_s, before_mib, quarters)


def _lines(count: int) -> Iterator[bytes]:
    for number in range(count):
        body = {"model": "echo", "prompt": f"{number} {FILLER}", "max_tokens": 8}
        line = {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": body,
        }
        yield json.dumps(line).encode() + b"\n"
