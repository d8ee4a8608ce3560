import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from synapse_worker.backends.completions import Cancelled, Completion, Completions
from synapse_worker.deltas import Delta
from synapse_worker.errors import InvalidRequest
from synapse_worker.load import Load

PATIENCE_S = 5.0


def piece(text: str, tokens: int, finish: str | None = None, cached: int = 0) -> str:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    timings = {"prompt_n": 3, "cache_n": cached, "predicted_n": tokens}
    return json.dumps({"choices": [choice], "timings": timings})


HELLO = [piece("", 0), piece("he", 1), piece("llo", 2), piece("", 2, "stop")]


class ScriptedEngine:
    """Writes what a request lists; waits at a `None` until it is let go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.begun: list[str] = []
        self.stopped = threading.Event()

    def check(self, request: Mapping[str, Any]) -> None:
        if request.get("constraint") == "bad":
            raise InvalidRequest("bad constraint")

    def complete(self, request: Mapping[str, Any], on_piece: Callable[[str], bool]) -> None:
        self.begun.append(request.get("name", ""))
        for each in request["pieces"]:
            if each is None:
                self.waiting.release()
                assert self.go_on.wait(PATIENCE_S)
            elif on_piece(each):
                self.stopped.set()
                return


class Waiting:
    """A caller that remembers what came."""

    def __init__(self) -> None:
        self.got: list[Delta] = []
        self.error: Exception | None = None
        self.gone = False
        self.breaks = False
        self.pause: threading.Event | None = None
        self.ended = threading.Event()
        self.something = threading.Event()
        self.on_question: Callable[[], None] = lambda: None

    def is_gone(self) -> bool:
        assert not self.ended.is_set(), "asked about a request that is forgotten"
        self.on_question()
        return self.gone

    def send(self, delta: Delta) -> None:
        if self.breaks:
            raise RuntimeError("no way out")
        self.got.append(delta)
        self.something.set()
        if self.pause is not None:
            assert self.pause.wait(PATIENCE_S)
        if delta.finish_reason:
            self.ended.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.ended.set()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def completions(engine: ScriptedEngine) -> Iterator[Completions]:
    made = Completions(engine, slots=2)
    yield made
    engine.go_on.set()
    made.close()


def start(
    completions: Completions,
    pieces: Sequence[str | None],
    *,
    in_parts: bool = False,
    caller: Waiting | None = None,
    **request: Any,
) -> Waiting:
    caller = caller or Waiting()
    wanted = {"pieces": pieces, **request}
    completions.start(Completion(wanted, caller, in_parts=in_parts))
    return caller


def ended(caller: Waiting) -> Waiting:
    assert caller.ended.wait(PATIENCE_S)
    return caller


def test_of_those_that_wait_for_a_slot_the_most_urgent_is_taken_first(
    completions: Completions, engine: ScriptedEngine
) -> None:
    running = [start(completions, [None, *HELLO], name="running") for _ in range(2)]
    for _ in running:
        assert engine.waiting.acquire(timeout=PATIENCE_S)
    waiting = []
    for name, priority in [("bronze", 1), ("silver", 0), ("later silver", 0), ("gold", -1)]:
        caller = Waiting()
        request = {"pieces": HELLO, "name": name}
        completions.start(Completion(request, caller, in_parts=False, priority=priority))
        waiting.append(caller)

    engine.go_on.set()
    for caller in (*running, *waiting):
        ended(caller)

    assert engine.begun[2] == "gold"
    assert engine.begun[-1] == "bronze"


def test_whoever_wants_it_whole_gets_it_once(completions: Completions) -> None:
    caller = ended(start(completions, HELLO))

    assert caller.got == [Delta("hello", 2, 3, 0, "stop")]


def test_parts_come_as_they_are_written_and_the_last_says_how_it_ended(
    completions: Completions, engine: ScriptedEngine
) -> None:
    caller = start(completions, [HELLO[0], HELLO[1], None, *HELLO[2:]], in_parts=True)

    assert caller.something.wait(PATIENCE_S)
    assert caller.got == [Delta("he", 1, 3)]
    engine.go_on.set()
    ended(caller)
    assert "".join(delta.text for delta in caller.got) == "hello"
    assert sum(delta.new_tokens for delta in caller.got) == 2
    assert [delta.finish_reason for delta in caller.got if delta.finish_reason] == ["stop"]
    assert caller.got[-1].finish_reason == "stop"


def test_what_is_written_while_the_delivery_is_busy_goes_out_together(
    completions: Completions, engine: ScriptedEngine
) -> None:
    slow = Waiting()
    slow.pause = threading.Event()
    start(completions, [HELLO[1], None, *HELLO[2:]], in_parts=True, caller=slow)
    assert slow.something.wait(PATIENCE_S)

    caller = start(completions, [*HELLO[:3], None, HELLO[3]], in_parts=True)
    assert all(engine.waiting.acquire(timeout=PATIENCE_S) for _ in range(2))
    slow.pause.set()

    assert caller.something.wait(PATIENCE_S)
    assert caller.got == [Delta("hello", 2, 3)]


def test_a_caller_that_goes_stops_the_engine(
    completions: Completions, engine: ScriptedEngine
) -> None:
    caller = start(completions, [HELLO[1], None, *[HELLO[2]] * 100], in_parts=True)
    assert caller.something.wait(PATIENCE_S)

    caller.gone = True
    other = start(completions, [None])  # lets the watch come round
    watched = threading.Event()
    other.on_question = watched.set
    assert watched.wait(PATIENCE_S)
    watched.clear()
    assert watched.wait(PATIENCE_S)
    engine.go_on.set()

    assert engine.stopped.wait(PATIENCE_S)
    assert isinstance(ended(caller).error, Cancelled)
    assert len(caller.got) == 1


def test_a_caller_that_went_before_its_turn_costs_the_engine_nothing(
    completions: Completions, engine: ScriptedEngine
) -> None:
    caller = Waiting()
    caller.gone = True

    start(completions, HELLO, caller=caller)

    assert isinstance(ended(caller).error, Cancelled)
    assert engine.begun == []


@pytest.mark.parametrize(
    ("pieces", "request_extra", "kind"),
    [
        (HELLO, {"constraint": "bad"}, InvalidRequest),
        (['{"error": {"code": 400, "message": "too long"}}'], {}, InvalidRequest),
        (["not json"], {}, ValueError),
        (HELLO[:2], {}, RuntimeError),
        ([], {}, RuntimeError),
    ],
)
@pytest.mark.parametrize("in_parts", [False, True])
def test_every_caller_hears_of_an_end(
    completions: Completions,
    pieces: list[str],
    request_extra: dict[str, Any],
    kind: type[Exception],
    in_parts: bool,
) -> None:
    caller = ended(start(completions, pieces, in_parts=in_parts, **request_extra))

    assert isinstance(caller.error, kind)


def test_a_caller_that_cannot_be_reached_stops_the_engine_and_spares_the_others(
    completions: Completions, engine: ScriptedEngine
) -> None:
    unreachable = Waiting()
    unreachable.breaks = True

    start(completions, [HELLO[1], None, *HELLO[2:]], in_parts=True, caller=unreachable)
    other = ended(start(completions, HELLO))
    engine.go_on.set()

    assert str(ended(unreachable).error) == "no way out"
    assert engine.stopped.wait(PATIENCE_S)
    assert other.error is None


def test_more_than_there_are_slots_wait_for_their_turn(
    completions: Completions, engine: ScriptedEngine
) -> None:
    callers = [start(completions, [None, *HELLO], name=name) for name in "abc"]
    assert all(engine.waiting.acquire(timeout=PATIENCE_S) for _ in range(2))

    assert engine.begun == ["a", "b"]
    engine.go_on.set()
    assert [ended(caller).got[-1].finish_reason for caller in callers] == ["stop"] * 3


def test_closing_lets_what_runs_come_to_its_end(engine: ScriptedEngine) -> None:
    completions = Completions(engine, slots=1)
    caller = start(completions, [None, *HELLO])
    assert engine.waiting.acquire(timeout=PATIENCE_S)
    threading.Timer(0.05, engine.go_on.set).start()

    completions.close()

    assert caller.got[-1].text == "hello"


def test_the_load_is_reported_while_it_changes_and_is_none_at_the_end(
    engine: ScriptedEngine,
) -> None:
    told: list[Load] = []
    arrived = threading.Event()

    def report(load: Load) -> None:
        told.append(load)
        if load.waiting:
            arrived.set()

    completions = Completions(engine, slots=1, report=report, capacity_tokens=100)
    callers = [start(completions, [None, piece("hi", 2, "stop", cached=2)]) for _ in range(2)]
    assert arrived.wait(PATIENCE_S)
    assert told[-1] == Load(running=1, waiting=1)
    engine.go_on.set()
    for caller in callers:
        ended(caller)

    completions.close()

    assert told[-1] == Load(prompt_tokens=10, cached_tokens=4)
    assert all(0 <= load.kv_cache_use <= 0.1 for load in told)


def test_an_engine_that_writes_for_nobody_any_more_is_given_up_once(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synapse_worker.backends.completions.CANCEL_CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr("synapse_worker.backends.completions.STUCK_SWEEPS", 20)
    given_up = threading.Semaphore(0)
    completions = Completions(engine, slots=2, on_stuck=given_up.release)
    idle = Completions(ScriptedEngine(), slots=2, on_stuck=given_up.release)

    hanging = start(completions, [None, *HELLO])
    assert given_up.acquire(timeout=PATIENCE_S)
    engine.go_on.set()
    ended(hanging)

    # Nothing runs in the other one; and what wrote again is not stuck.
    assert not given_up.acquire(timeout=0.1)
    completions.close()
    idle.close()


@pytest.mark.parametrize("what", ["fail", "is_gone"])
def test_an_engine_that_can_reach_nobody_is_given_up(engine: ScriptedEngine, what: str) -> None:
    given_up = threading.Event()
    completions = Completions(engine, slots=2, on_stuck=given_up.set)
    caller = start(completions, [None, *HELLO])
    assert engine.waiting.acquire(timeout=PATIENCE_S)

    def no_room(*_: object) -> bool:
        raise RuntimeError("no room in shared memory, for an error neither")

    caller.breaks = True
    setattr(caller, what, no_room)
    if what == "fail":
        engine.go_on.set()

    assert given_up.wait(PATIENCE_S), "else everybody would wait for ever"
    engine.go_on.set()
    completions.close()


def test_an_engine_with_larger_batches_is_given_more_time(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synapse_worker.backends.completions.CANCEL_CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr("synapse_worker.backends.completions.STUCK_SWEEPS", 20)
    given_up = threading.Event()
    completions = Completions(engine, slots=2, on_stuck=given_up.set, batch_tokens=512 * 100_000)

    hanging = start(completions, [None, *HELLO])

    assert not given_up.wait(0.3)
    engine.go_on.set()
    ended(hanging)
    completions.close()


def test_an_engine_that_writes_now_and_then_is_not_stuck(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synapse_worker.backends.completions.CANCEL_CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr("synapse_worker.backends.completions.STUCK_SWEEPS", 2000)
    given_up = threading.Event()
    completions = Completions(engine, slots=2, on_stuck=given_up.set)
    # One hangs while the other is served: its turn comes yet.
    hanging = start(completions, [None, *HELLO])
    assert engine.waiting.acquire(timeout=PATIENCE_S)
    for _ in range(50):
        ended(start(completions, HELLO))

    assert not given_up.is_set()
    engine.go_on.set()
    ended(hanging)
    completions.close()
