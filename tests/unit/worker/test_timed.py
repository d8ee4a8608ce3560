"""Work that takes time: in so many slots, by priority, and disturbed as a file says."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_worker.backends.timed import NO_FAULTS, POLL_S, Faults, FaultsFile, TimedSlots, Work
from synapse_worker.load import Load
from tests.patience import PATIENCE_S, wait_until

ITEM_S = 0.03


class Noted:
    """A caller that notes when and how its work ended."""

    def __init__(self, name: str = "", ends: list[str] | None = None) -> None:
        self.took_s = 0.0
        self.message = ""
        self.gone = False
        self._name, self._ends = name, ends if ends is not None else []
        self._began_at = time.monotonic()
        self._over = threading.Event()

    def is_gone(self) -> bool:
        return self.gone

    def done(self) -> None:
        assert not self._over.is_set(), "told twice"
        self.took_s = time.monotonic() - self._began_at
        self._ends.append(self._name)
        self._over.set()

    def fail(self, message: str) -> None:
        self.message = message
        self.done()

    def wait(self) -> "Noted":
        assert self._over.wait(PATIENCE_S), "nothing came of it"
        return self

    @property
    def is_over(self) -> bool:
        return self._over.is_set()


class Disturbed:
    """Faults that a test sets."""

    def __init__(self) -> None:
        self.faults = NO_FAULTS

    def __call__(self) -> Faults:
        return self.faults


@pytest.fixture
def disturbed() -> Disturbed:
    return Disturbed()


@pytest.fixture
def slots(disturbed: Disturbed) -> Iterator[TimedSlots]:
    running = TimedSlots(2, disturbed)
    yield running
    running.close()


def started(slots: TimedSlots, items: int = 1, priority: int = 0, **changes: object) -> Noted:
    caller = Noted(**changes)  # type: ignore[arg-type]
    slots.start(Work(caller, [ITEM_S] * items, priority))
    return caller


def test_an_item_takes_its_time(slots: TimedSlots) -> None:
    assert started(slots).wait().took_s >= ITEM_S


def test_items_in_free_slots_run_side_by_side(slots: TimedSlots) -> None:
    for _ in range(2):
        slots.start(Work(Noted(), [3600.0]))

    wait_until(lambda: slots.load().running == 2)


def test_a_request_of_more_items_than_slots_takes_several_turns(slots: TimedSlots) -> None:
    assert started(slots, items=5).wait().took_s >= 3 * ITEM_S


def test_what_waits_is_taken_by_priority_then_by_age(
    slots: TimedSlots, disturbed: Disturbed
) -> None:
    ends: list[str] = []
    disturbed.faults = Faults(hang=True)
    waiting = [
        started(slots, priority=1, name="bronze", ends=ends, items=2),
        started(slots, priority=0, name="silver 1", ends=ends, items=2),
        started(slots, priority=0, name="silver 2", ends=ends, items=2),
        started(slots, priority=-1, name="gold", ends=ends, items=2),
    ]

    disturbed.faults = NO_FAULTS
    for caller in waiting:
        caller.wait()

    assert ends == ["gold", "silver 1", "silver 2", "bronze"]


def test_an_urgent_item_passes_what_is_left_of_a_large_request(slots: TimedSlots) -> None:
    ends: list[str] = []
    large = Noted("large", ends)
    work = Work(large, [ITEM_S] * 40, priority=1)
    slots.start(work)
    wait_until(lambda: work.begun > 0)
    started(slots, priority=-1, name="urgent", ends=ends).wait()

    large.wait()

    assert ends == ["urgent", "large"]


def test_slower_by_a_factor(slots: TimedSlots, disturbed: Disturbed) -> None:
    disturbed.faults = Faults(slow_factor=4)

    assert started(slots).wait().took_s >= 4 * ITEM_S


def test_what_hangs_goes_on_when_it_hangs_no_more() -> None:
    running, waiting, is_well = Noted(), Noted(), threading.Event()
    begun, later = Work(running, [ITEM_S]), Work(waiting, [ITEM_S])
    slots = TimedSlots(2, lambda: Faults(hang=begun.begun > 0 and not is_well.is_set()))
    slots.start(begun)
    wait_until(lambda: begun.begun > 0)
    slots.start(later)
    time.sleep(2 * ITEM_S)
    assert not running.is_over
    assert later.begun == 0

    is_well.set()

    running.wait()
    waiting.wait()
    slots.close()


def test_errors_come_at_once_and_spare_what_runs(slots: TimedSlots, disturbed: Disturbed) -> None:
    running = Noted()
    work = Work(running, [ITEM_S] * 3)
    slots.start(work)
    wait_until(lambda: work.begun > 0)
    disturbed.faults = Faults(error="out of memory")
    refused = started(slots)

    assert running.wait().message == ""
    assert refused.wait().message == "out of memory"


def test_what_nobody_waits_for_takes_no_slot(slots: TimedSlots) -> None:
    gone = Noted()
    gone.gone = True
    slots.start(Work(gone, [60.0]))

    assert gone.wait().message == "request was cancelled"


def test_faults_come_and_go_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    file = FaultsFile(path)
    assert file.now() == NO_FAULTS

    path.write_text(json.dumps({"slow_factor": 10, "hang": True}))
    time.sleep(POLL_S)
    assert file.now() == Faults(slow_factor=10, hang=True)

    for unreadable in ("{half", '{"unknown": 1}', "[1]"):
        path.write_text(unreadable)
        time.sleep(POLL_S)
        assert file.now() == Faults(slow_factor=10, hang=True)

    path.unlink()
    time.sleep(POLL_S)
    assert file.now() == NO_FAULTS
    assert FaultsFile(None).now() == NO_FAULTS


def test_the_load_is_the_items_in_slots_and_the_requests_that_wait(slots: TimedSlots) -> None:
    started(slots).wait()
    assert slots.load() == Load()

    for items in (3, 1):
        slots.start(Work(Noted(), [3600.0] * items))

    wait_until(lambda: slots.load() == Load(running=2, waiting=2))
