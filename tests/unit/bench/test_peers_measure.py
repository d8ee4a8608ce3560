"""What is made of one load: figures beside the machine's state, taken again where it was bad."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest

from bench.client import Load
from bench.control import Control, Watch
from bench.peers import measure
from bench.peers.measure import REPEATS, Meter
from bench.peers.process import Running

CALM = Control(0.0, 0.2, 0.1, 0.0)
STOLEN = Control(0.3, 9.0, 0.1, 0.6)
BUSY = Control(0.05, 2.0, 0.9, 0.1)
PID = 77
CORE_S = 0.5


class Controls:
    """Stands for the watch: what it will tell, measurement by measurement."""

    def __init__(self, *told: Control) -> None:
        self.told = list(told)
        self.own_s: list[float] = []

    def begin(self) -> None:
        pass

    def end(self, own_s: float) -> Control:
        self.own_s.append(own_s)
        return self.told.pop(0)


class Process:
    """Stands for a running peer."""

    pid = PID


@pytest.fixture(autouse=True)
def spending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer whose two processes spend half a second between any two readings."""
    clock: Iterator[float] = iter(range(1000))
    monkeypatch.setattr(measure, "with_session", lambda pid: [pid, pid + 1])
    monkeypatch.setattr(
        measure,
        "readings",
        lambda pids: {pid: CORE_S / 2 * at for at in [next(clock)] for pid in pids},
    )


async def a_load() -> Load:
    return Load([0.010] * 98 + [0.050] * 2, Counter({"HTTP 503": 2}), took_s=2.0)


def a_meter(watch: Controls, repeat_for_s: float = 60.0) -> Meter:
    until = time.monotonic() + repeat_for_s
    return Meter(cast(Running, Process()), cast(Watch, watch), until)


async def test_a_load_is_told_with_processor_time_a_request_and_the_machines_state() -> None:
    watch = Controls(CALM)
    point = await a_meter(watch).point(a_load)
    assert (point.answers, point.per_s) == (100, 50.0)
    assert point.p50_ms == pytest.approx(10.0)
    assert point.p99_ms == pytest.approx(50.0)
    assert point.core_ms == pytest.approx(1000 * CORE_S / 100)
    assert point.errors == {"HTTP 503": 2}
    assert (point.stolen, point.late_ms, point.others_cores) == (0.0, 0.2, 0.1)
    assert CORE_S <= watch.own_s[0] < CORE_S + 1.0


async def test_at_rest_a_system_keeps_as_many_cores_busy_as_it_spends_seconds_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    cores = await a_meter(Controls()).at_rest(0.1)
    assert 0.0 < cores <= CORE_S / 0.1


async def test_what_others_disturb_is_measured_again_until_it_is_not() -> None:
    watch = Controls(STOLEN, CALM, CALM)
    assert (await a_meter(watch).point(a_load)).stolen == 0.0
    assert len(watch.told) == 1
    watch = Controls(BUSY, CALM)
    assert (await a_meter(watch).point(a_load)).others_cores == CALM.others_cores


async def test_it_is_measured_again_so_often_and_no_more_and_the_best_is_taken() -> None:
    watch = Controls(STOLEN, Control(0.2, 5.0, 0.1, 0.4), STOLEN, CALM)
    point = await a_meter(watch).point(a_load)
    assert len(watch.told) == 4 - (1 + REPEATS)
    assert point.stolen == 0.2
    assert point.is_disturbed


async def test_there_is_no_time_for_ever_to_measure_again() -> None:
    watch = Controls(STOLEN, CALM)
    assert (await a_meter(watch, repeat_for_s=-1.0).point(a_load)).is_disturbed
    assert watch.told == [CALM]


async def test_nothing_answered_has_neither_latency_nor_processor_time() -> None:
    async def refused() -> Load:
        return Load(errors=Counter({"HTTP 503": 5}), took_s=1.0)

    point = await a_meter(Controls(CALM)).point(refused)
    assert (point.answers, point.per_s) == (0, 0.0)
    assert (point.p50_ms, point.p99_ms, point.core_ms) == (None, None, None)
