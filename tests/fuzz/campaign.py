"""All parts of the fuzzer at once against one server, and what was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz import ends
from tests.fuzz.bodies import Route
from tests.fuzz.raw import PART as RAW
from tests.fuzz.raw import send_raw
from tests.fuzz.record import Record
from tests.fuzz.schemas import PART as SCHEMAS
from tests.fuzz.schemas import send_schemas
from tests.fuzz.shapes import PART as SHAPES
from tests.fuzz.shapes import send_shapes
from tests.fuzz.stage import Stage, set_up
from tests.unit.api.front_door import FrontDoor

PARTS = {"schemas": 0.3, "shapes": 0.45, "raw": 0.25}
"""What share of the inputs each is given."""

NAMES = {"schemas": SCHEMAS, "shapes": SHAPES, "raw": RAW}


@dataclass
class Outcome:
    """What was sent, what was found, and what the server became."""

    record: Record
    memory: ends.Memory
    accepted: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.record.faults


def all_routes() -> list[Route]:
    """The app's own table: what is not in it, does not exist."""
    return list(FrontDoor().api.scopes.by_route)


def run(
    folder: Path,
    number: int,
    inputs: int,
    parts: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """At least so many inputs; the same number makes the same ones."""
    chosen = {name: PARTS[name] for name in parts or PARTS}
    stage = set_up(folder)
    try:
        started_s = time.monotonic()
        outcome = _run(stage, folder, number, inputs, chosen, say)
        outcome.seconds = time.monotonic() - started_s
        _judge_end(stage, outcome, say)
    finally:
        stage.server.close()
    return outcome


def _run(
    stage: Stage,
    folder: Path,
    number: int,
    inputs: int,
    parts: dict[str, float],
    say: Callable[[str], None],
) -> Outcome:
    routes, pid = all_routes(), stage.server.pid
    record = Record()
    outcome = Outcome(record, ends.Memory(stage.server))
    total = sum(parts.values())
    count = {name: round(inputs * share / total) for name, share in parts.items()}
    work = {
        "schemas": partial(send_schemas, stage, record, routes, number=number, folder=folder),
        "shapes": partial(send_shapes, stage, record, routes, number=number),
        "raw": partial(send_raw, stage, record, routes, number=number),
    }
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stage, outcome, over, say))
    watcher.start()
    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            tasks = [pool.submit(work[name], inputs=count[name]) for name in parts]
        for task in tasks:
            task.result()
        while (left := inputs - record.total) > 0:
            work[next(reversed(parts))](inputs=left)
    finally:
        over.set()
        watcher.join()
    if not ends.is_alive(stage, pid):
        record.wrong("the server", ["is not what it was at the start"], "")
    _judge_reach(record, routes, parts)
    return outcome


def _watch(
    stage: Stage, outcome: Outcome, over: threading.Event, say: Callable[[str], None]
) -> None:
    told_s = time.monotonic()
    while not over.wait(ends.SAMPLE_EVERY_S):
        try:
            outcome.memory.sample(outcome.record.total)
        except OSError:
            outcome.record.wrong("the server", ["went down"], "")
            return
        if time.monotonic() - told_s > 30:
            told_s = time.monotonic()
            say(f"{outcome.record.total} inputs, {len(outcome.record.faults)} kinds of faults")


def _judge_reach(record: Record, routes: Sequence[Route], parts: dict[str, float]) -> None:
    """No route was forgotten, and each has let somebody in who may."""
    if set(parts) == {"raw"}:
        return
    for route in routes:
        statuses = record.by_route.get(route)
        if statuses is None:
            record.wrong(" ".join(route), ["was never asked"], "")
        elif set(statuses) <= {0, 401, 403}:
            record.wrong(" ".join(route), ["nobody got past its door"], str(statuses))


def _judge_end(stage: Stage, outcome: Outcome, say: Callable[[str], None]) -> None:
    record = outcome.record
    say(f"{record.total} inputs sent; waiting for what was accepted")
    outcome.accepted = ends.accepted_jobs(stage)
    for state, count in ends.never_ended(stage).items():
        record.wrong("at the end", [f"{state} for ever"], str(count))
    outcome.memory.sample(record.total)
    growth = outcome.memory.growth()
    if growth > ends.MAX_GROWTH_BYTES and record.total > 2_000:
        record.wrong("at the end", ["memory grows with every input"], f"{growth:.0f} bytes each")
    if stage.server.stop() != 0:
        record.wrong("at the end", ["the server did not stop as it should"], "")
    for fault in ends.told_in_logs(stage):
        record.wrong("log", [fault], "")
