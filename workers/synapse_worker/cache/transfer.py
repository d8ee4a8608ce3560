"""Fetches the missing parts of a draft over many connections, and never waits for a silent one."""

import hashlib
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from synapse_worker.cache.checking import Corrupt, FileCheck
from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.draft import Draft
from synapse_worker.cache.manifest import Part
from synapse_worker.cache.stores import Changed, Connection, Store, Stream, Unreachable
from synapse_worker.errors import WorkerError

BUFFER_BYTES = 256 << 10
"""Stays in a core's own cache from the socket through the checksum to the file."""
WATCH_INTERVAL_S = 0.1
MAX_CORRUPT = 3
"""How often a part may come wrong. Once is the network's fault, three times the store's."""


class Stopped(Exception):
    """Whoever wanted the model does not any more."""


@dataclass(slots=True)
class _Slot:
    """A connection and what it is doing. `moved_at` is 0 while it waits for no bytes."""

    connection: Connection
    got_bytes: int = 0
    moved_at: float = 0.0
    stalled: bool = False


class Transfer:
    """One run over a draft, in threads of its own."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        draft: Draft,
        config: TransferConfig,
        stop: threading.Event,
    ) -> None:
        """`prefix` stands before the paths of the files; setting `stop` ends it early."""
        self._store = store
        self._prefix = prefix
        self._draft = draft
        self._config = config
        self._stop = stop
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._slots: list[_Slot] = []
        self._checks = file_checks(draft)
        # All of these change under the condition, which tells of more to do and of the end.
        self._change = threading.Condition()
        self._missing = deque(draft.missing())
        self._todo_bytes = sum(part.length for part in self._missing)
        self._etags: dict[int, str] = {}
        self._corrupt: Counter[Part] = Counter()

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Return when every file is there and checked; `on_progress` is told the bytes there.

        Raises:
            Stopped, Changed, Corrupt, WorkerError, OSError: the last one of the disk.
        """
        count = max(1, min(self._config.connections, len(self._missing)))
        self._slots = [_Slot(self._store.connect()) for _ in range(count)]
        threads = [
            threading.Thread(target=self._work, args=(slot,), name="model-part", daemon=True)
            for slot in self._slots
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._over.wait(WATCH_INTERVAL_S):
                self._watch()
                on_progress(self._there_bytes())
        finally:
            self._end()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        on_progress(self._there_bytes())

    def _there_bytes(self) -> int:
        with self._change:
            under_way = sum(slot.got_bytes for slot in self._slots)
            return self._draft.manifest.total_bytes - self._todo_bytes + under_way

    def _watch(self) -> None:
        if self._stop.is_set():
            self._fail(Stopped())
        now = time.monotonic()
        for slot in self._slots:
            if slot.moved_at and now - slot.moved_at > self._config.stall_timeout_s:
                slot.stalled = True
                slot.connection.abort()

    def _fail(self, error: BaseException) -> None:
        with self._change:
            if not self._over.is_set():
                self._failure = error
        self._end()

    def _end(self) -> None:
        with self._change:
            self._over.set()
            self._change.notify_all()
        for slot in self._slots:
            slot.connection.abort()

    def _work(self, slot: _Slot) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            for file in range(len(self._checks)):  # what an earlier run had brought
                self._check(file)
            while (part := self._next()) is not None:
                self._bring(part, slot, buffer)
                self._check(part.file)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._fail(error)
        finally:
            slot.connection.close()

    def _next(self) -> Part | None:
        """The next part to fetch; waits while others may yet find that one must come again."""
        with self._change:
            self._change.wait_for(lambda: self._missing or self._over.is_set())
            return None if self._over.is_set() else self._missing.popleft()

    def _check(self, file: int) -> None:
        wrong = self._checks[file].follow()
        with self._change:
            for part in wrong:
                self._count_corrupt(part)
                self._todo_bytes += part.length
            self._missing.extend(wrong)
            self._change.notify_all()
            is_whole = all(check.is_whole for check in self._checks)
        if is_whole:
            self._end()

    def _count_corrupt(self, part: Part) -> None:
        self._corrupt[part] += 1
        if self._corrupt[part] >= MAX_CORRUPT:
            raise Corrupt(
                f"{self._name(part)} came {MAX_CORRUPT} times with the wrong SHA-256",
                "Publish the model again",
            )

    def _bring(self, part: Part, slot: _Slot, buffer: memoryview) -> None:
        """Fetch, check and write a part, as often as it takes."""
        failures, cause = 0, ""
        while failures < self._config.attempts:
            if self._over.is_set():
                raise Stopped
            try:
                if self._fetch(part, slot, buffer) == part.sha256:
                    return self._finish(part, slot)
                with self._change:
                    self._count_corrupt(part)
            except Unreachable as error:
                failures += 1
                cause = f"nothing came for {self._config.stall_timeout_s:g} s"
                cause = cause if slot.stalled else str(error)
                self._over.wait(max(error.retry_after_s, self._config.delay_s(failures)))
            finally:
                slot.got_bytes, slot.moved_at, slot.stalled = 0, 0.0, False
        raise WorkerError(
            f"{self._name(part)} could not be fetched in {failures} tries, the last one: {cause}",
            "Try again when the model store can be reached; what is here already is kept",
        )

    def _fetch(self, part: Part, slot: _Slot, buffer: memoryview) -> str:
        """The checksum of what came and was written."""
        slot.moved_at = time.monotonic()
        try:
            stream = self._open(part, slot.connection)
            digest = hashlib.sha256()
            while slot.got_bytes < part.length:
                count = stream.readinto(buffer[: part.length - slot.got_bytes])
                if count == 0:
                    raise Unreachable("the connection ended early")
                slot.moved_at = 0.0  # the disk may take its time
                digest.update(buffer[:count])
                self._draft.write(part, part.start + slot.got_bytes, buffer[:count])
                slot.got_bytes += count
                slot.moved_at = time.monotonic()
            return digest.hexdigest()
        except BaseException:
            slot.moved_at = 0.0
            slot.connection.close()  # the rest of the answer may yet come
            raise

    def _open(self, part: Part, connection: Connection) -> Stream:
        path = self._prefix + self._draft.manifest.files[part.file].path
        etag = self._etags.get(part.file, "")
        stream = connection.open(path, part.start, part.length, etag)
        with self._change:
            if self._etags.setdefault(part.file, stream.etag) != stream.etag:
                raise Changed(f"{path} has changed")
        return stream

    def _finish(self, part: Part, slot: _Slot) -> None:
        self._draft.finish(part)
        with self._change:
            self._todo_bytes -= part.length
            slot.got_bytes = 0

    def _name(self, part: Part) -> str:
        path = self._draft.manifest.files[part.file].path
        return f"{self._prefix}{path}, bytes {part.start} to {part.end - 1},"


def file_checks(draft: Draft) -> list[FileCheck]:
    """One for each file of the draft."""
    by_file = defaultdict(list)
    for part in draft.manifest.parts():  # the first ones first
        by_file[part.file].append(part)
    return [FileCheck(draft, file, by_file[file]) for file in range(len(draft.manifest.files))]
