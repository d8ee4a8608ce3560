"""Completions on their way from the engine to their callers.

The engine wants every core for every token, so what happens between its steps is kept short. A
slot's thread does nothing with a piece but queue it. One thread delivers for all: what it finds of
one completion goes out together, so that it never falls behind. One more asks for all whether
their callers are still there, and whether the engine is.
"""

import itertools
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import PriorityQueue, SimpleQueue
from typing import Any, Protocol

from synapse_worker.deltas import Delta, DeltaReader, merge
from synapse_worker.load import Load

CANCEL_CHECK_INTERVAL_S = 0.15
"""The pause between two sweeps, each of which asks once for each running completion."""

STUCK_SWEEPS = int(300 / CANCEL_CHECK_INTERVAL_S)
"""So many without a piece for anybody, though something runs, and the engine will not come back.
While it reads a prompt it tells of its progress after each batch: this is for one of 512 tokens,
2 a second. Sweeps, not a clock: a process that was stopped meanwhile is not to blame."""


class Engine(Protocol):
    """What writes completions; `on_piece` gets them in pieces and returns True to stop one."""

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse what it would silently ignore."""

    def complete(self, request: Mapping[str, Any], on_piece: Callable[[str], bool]) -> None: ...


class Caller(Protocol):
    """Who waits for a completion."""

    def is_gone(self) -> bool: ...

    def send(self, delta: Delta) -> None:
        """Hand over what is new; nothing follows one with a `finish_reason`."""

    def fail(self, error: Exception) -> None:
        """Tell why there is no more; nothing follows."""


class Cancelled(Exception):
    """The caller has gone."""


END = None
Piece = str | Exception | None
"""What the engine writes, or why it stopped, or its end."""


class Completion:
    """What one caller waits for, `in_parts` as it is written or else whole.

    Of those that wait for a slot the one with the lowest `priority` is taken first.
    """

    def __init__(
        self, request: Mapping[str, Any], caller: Caller, *, in_parts: bool, priority: int = 0
    ) -> None:
        self.request = request
        self.priority = priority
        self.caller = caller
        self.is_over = False
        self.prompt_tokens = self.cached_tokens = self.new_tokens = 0
        self._is_cancelled = False
        # Triton forgets a request with its last response, and dies if asked about it then; nor
        # does it bear two calls about the same one at once.
        self._calling = threading.Lock()
        self._in_parts = in_parts
        self._reader = DeltaReader()
        self._held: list[Delta] = []

    def check_caller(self) -> None:
        """Have it stopped if nobody waits for it any more."""
        with self._calling:
            if not self.is_over and self.caller.is_gone():
                self._is_cancelled = True

    @property
    def is_unwanted(self) -> bool:
        """Whether the engine should stop writing it."""
        return self._is_cancelled or self.is_over

    def take(self, pieces: list[Piece]) -> None:
        """Pass on what came of it, in order. Without an end its caller would hang."""
        try:
            for piece in pieces:
                self._take(piece)
            if self._has_part:
                self._send_held(last=False)
        except Exception as error:  # noqa: BLE001 - told to the caller, who decides about a retry
            with self._calling:
                if not self.is_over:
                    self.is_over = True
                    self.caller.fail(error)

    @property
    def _has_part(self) -> bool:
        """Whether there is something to send; the last part waits for the engine's end."""
        if not self._in_parts or not self._held or self._held[-1].finish_reason is not None:
            return False
        return any(delta.text for delta in self._held)

    def _take(self, piece: Piece) -> None:
        if self.is_over:
            return
        if isinstance(piece, str):
            self._held.append(delta := self._reader.read(piece))
            self.prompt_tokens = delta.prompt_tokens or self.prompt_tokens
            self.cached_tokens = delta.cached_tokens or self.cached_tokens
            self.new_tokens += delta.new_tokens
        elif self._is_cancelled:
            raise Cancelled
        elif piece is not END:
            raise piece
        elif not self._held or self._held[-1].finish_reason is None:
            raise RuntimeError("the engine ended without a result")
        else:
            self._send_held(last=True)

    def _send_held(self, *, last: bool) -> None:
        with self._calling:
            self.caller.send(merge(self._held))
            self.is_over = last
        self._held.clear()


class Completions:
    """Runs as many completions at once as the engine has slots; more wait for their turn.

    Turns are by priority, then by age.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        report: Callable[[Load], None] = lambda _: None,
        capacity_tokens: int = 0,
        on_stuck: Callable[[], None] = lambda: None,
        batch_tokens: int = 512,
    ) -> None:
        """`report` is told the load, from one thread, when it has changed.

        The slots together hold `capacity_tokens`. `on_stuck` is called when the engine no longer
        writes for anybody, nor will, or nobody can be told any more what it writes.
        """
        self._engine = engine
        self._report = report
        self._patience = max(1, batch_tokens // 512)
        self._capacity_tokens = capacity_tokens
        self._on_stuck = on_stuck
        self._signs_of_life = 0
        self._prompt_tokens = self._cached_tokens = 0
        self._slots = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._numbers = itertools.count()
        self._waiting: PriorityQueue[tuple[int, int, Completion]] = PriorityQueue()
        self._running: dict[int, Completion] = {}
        self._pieces: SimpleQueue[tuple[Completion, Piece] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_for_all, args=(each,), name=name, daemon=True)
            for name, each in (("delivery", self._deliver), ("watch", self._watch))
        ]
        for thread in self._threads:
            thread.start()

    def start(self, completion: Completion) -> None:
        """Run it when there is a slot; its caller hears of it."""
        self._waiting.put((completion.priority, next(self._numbers), completion))
        self._slots.submit(self._run_next)

    def close(self) -> None:
        """Let what runs come to its end; what waits for a slot has no caller any more."""
        self._slots.shutdown(wait=True, cancel_futures=True)
        self._closing.set()
        self._pieces.put(None)
        for thread in self._threads:
            thread.join()
        self._report(self._load([]))

    def _run_next(self) -> None:
        """In a slot's thread: there are as many calls as completions, but not for any one."""
        _, _, completion = self._waiting.get_nowait()
        self._run(completion)

    def _run(self, completion: Completion) -> None:
        """Everything that costs time is without the interpreter's lock."""
        pieces = self._pieces
        self._running[id(completion)] = completion
        end: Piece = END
        try:
            completion.check_caller()
            if not completion.is_unwanted:
                self._engine.check(completion.request)
                self._engine.complete(completion.request, on_piece(completion, pieces))
        except Exception as error:  # noqa: BLE001 - the delivery tells it
            end = error
        finally:
            del self._running[id(completion)]
            pieces.put((completion, end))

    def _run_for_all(self, work: Callable[[], None]) -> None:
        """In a thread on which all depend: without it everybody would hang."""
        try:
            work()
        except Exception:  # noqa: BLE001 - such as no room in shared memory, not even for an error
            traceback.print_exc()
            self._on_stuck()

    def _deliver(self) -> None:
        closed = False
        while not closed:
            arrived = [self._pieces.get()]
            while not self._pieces.empty():
                arrived.append(self._pieces.get())
            self._signs_of_life += 1
            together: dict[Completion, list[Piece]] = {}
            for each in arrived:
                if each is None:
                    closed = True
                else:
                    together.setdefault(each[0], []).append(each[1])
            for completion, pieces in together.items():
                was_over = completion.is_over
                completion.take(pieces)
                if completion.is_over and not was_over:
                    self._prompt_tokens += completion.prompt_tokens
                    self._cached_tokens += completion.cached_tokens

    def _watch(self) -> None:
        reported = Load()
        silent_sweeps, signs_of_life = 0, 0
        while not self._closing.wait(CANCEL_CHECK_INTERVAL_S):
            running = list(self._running.values())
            for completion in running:
                completion.check_caller()
            is_told = signs_of_life != self._signs_of_life or not self._pieces.empty()
            is_silent = running and not is_told
            silent_sweeps, signs_of_life = (
                silent_sweeps + 1 if is_silent else 0,
                self._signs_of_life,
            )
            if silent_sweeps == STUCK_SWEEPS * self._patience:
                self._on_stuck()
            load = self._load(running)
            if load != reported:
                reported = load
                self._report(load)

    def _load(self, running: Sequence[Completion]) -> Load:
        held_tokens = sum(each.prompt_tokens + each.new_tokens for each in running)
        return Load(
            running=len(running),
            waiting=self._waiting.qsize(),
            kv_cache_use=held_tokens / self._capacity_tokens if self._capacity_tokens else 0.0,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
        )


def on_piece(
    completion: Completion, pieces: SimpleQueue[tuple[Completion, Piece] | None]
) -> Callable[[str], bool]:
    """What the engine calls; no exception may cross it."""

    def queue(piece: str) -> bool:
        pieces.put((completion, piece))
        return completion.is_unwanted

    return queue
