"""What the machine did while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.control import TICKS_PER_S, Ticks, Watch, lateness_ms
from bench.processor import readings, spent_s


def test_the_kernels_line_is_read(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 500 6 7 80 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n", "utf-8")
    assert Ticks.read(stat) == Ticks(150 / TICKS_PER_S, 80 / TICKS_PER_S)


def test_what_was_stolen_is_a_share_of_what_was_wanted() -> None:
    assert Ticks(13.0, 3.0).stolen_since(Ticks(10.0, 2.0)) == pytest.approx(0.25)
    assert Ticks(10.0, 2.0).stolen_since(Ticks(10.0, 2.0)) == 0.0


def test_a_pause_shows_in_the_lateness_and_a_few_late_ticks_do_not() -> None:
    assert lateness_ms([]) == 0.0
    assert lateness_ms([0.0] * 995 + [0.3] * 5) == 0.0
    assert lateness_ms([0.0] * 99 + [0.3]) == 0.0
    assert lateness_ms([0.0] * 900 + [0.3] * 100) == pytest.approx(300.0)


def test_the_watch_tells_of_what_was_spent_by_others() -> None:
    with Watch() as watch:
        watch.begin()
        busy_until = time.monotonic() + 0.3
        own_s = time.process_time()
        while time.monotonic() < busy_until:
            pass
        own_s = time.process_time() - own_s
        mine = watch.end(own_s)
    assert 0.0 <= mine.stolen <= 1.0
    assert mine.late_ms >= 0.0
    assert 0.0 <= mine.others_cores <= (os.cpu_count() or 1)
    assert 0.0 <= mine.stolen_cores <= (os.cpu_count() or 1)


def test_what_processes_spend_is_the_difference_of_two_readings() -> None:
    before = readings([os.getpid()])
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    after = readings([os.getpid(), 2**22 + 1])
    assert set(after) == {os.getpid()}
    assert spent_s(before, after) >= 0.15
    assert spent_s({}, {5: 1.5}) == 1.5
    assert spent_s({5: 1.5, 6: 9.0}, {5: 2.0}) == 0.5
