"""Fetches the missing parts of a draft over many connections, and never waits for a silent one.

What was written is read back at once and hashed, by the thread that brought it: what is checked is
what lies in the file, and as many cores hash as there are. Hashing whole parts at their ends would
be simpler, but connections that share a link evenly end their parts together, and it lies idle.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.draft import Draft
from synapse_worker.cache.manifest import Part
from synapse_worker.cache.stores import Changed, Connection, Store, Stream, Unreachable
from synapse_worker.cache.worklist import Task, Worklist
from synapse_worker.errors import WorkerError

BUFFER_BYTES = 256 << 10
"""Stays in a core's own cache between the socket and the file."""
WATCH_INTERVAL_S = 0.1
MAX_CORRUPT = 3
"""How often a part may come wrong. Once is the network's fault, three times the store's."""


class Stopped(Exception):
    """Whoever wanted the model does not any more."""


class Corrupt(WorkerError):
    """What the store has is not what its manifest says."""


@dataclass(slots=True)
class _Slot:
    """A connection and what it is doing. `moved_at` is 0 while it waits for no bytes."""

    connection: Connection
    got_bytes: int = 0
    moved_at: float = 0.0
    stalled: bool = False

    def rest(self) -> None:
        """It does nothing any more."""
        self.got_bytes, self.moved_at, self.stalled = 0, 0.0, False


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
        self._list = Worklist(draft)
        self._slots: list[_Slot] = []
        self._etags: dict[int, str] = {}
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Return when every part is there and intact; `on_progress` is told the bytes there.

        Raises:
            Stopped, Changed, Corrupt, WorkerError, OSError: the last one of the disk.
        """
        count = min(self._config.connections, self._list.open_parts)
        self._slots = [_Slot(self._store.connect()) for _ in range(count)]
        threads = [
            threading.Thread(target=self._work, args=(slot,), name="model-part", daemon=True)
            for slot in self._slots
        ]
        for thread in threads:
            thread.start()
        try:
            while threads and not self._over.wait(WATCH_INTERVAL_S):
                self._watch()
                on_progress(self._there_bytes())
        finally:
            for thread in threads:
                while thread.is_alive():
                    self._end()  # more than once: it may have been connecting
                    thread.join(WATCH_INTERVAL_S)
        if self._failure is not None:
            raise self._failure
        on_progress(self._there_bytes())

    def _there_bytes(self) -> int:
        under_way = sum(slot.got_bytes for slot in self._slots)
        missing = max(0, self._list.missing_bytes - under_way)
        return self._draft.manifest.total_bytes - missing

    def _watch(self) -> None:
        if self._stop.is_set():
            self._fail(Stopped())
        now = time.monotonic()
        for slot in self._slots:
            if slot.moved_at and now - slot.moved_at > self._config.stall_timeout_s:
                slot.stalled = True
                slot.connection.abort()

    def _fail(self, error: BaseException) -> None:
        """The first failure ends it; what the others then run into is of its making."""
        with self._lock:
            if not self._over.is_set():
                self._failure = error
            self._over.set()
        self._end()

    def _end(self) -> None:
        self._over.set()
        self._list.close()
        for slot in self._slots:
            slot.connection.abort()

    def _work(self, slot: _Slot) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while (task := self._list.next()) is not None:
                self._do(task, slot, buffer)
            self._over.set()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._fail(error)
        finally:
            slot.connection.close()

    def _do(self, task: Task, slot: _Slot, buffer: memoryview) -> None:
        if not task.is_here:
            self._bring(task.part, slot, buffer)
        elif not self._draft.is_intact(task.part):
            self._draft.forget(task.part)
            return self._list.fetch_again(task)
        slot.rest()
        self._list.succeed(task)

    def _bring(self, part: Part, slot: _Slot, buffer: memoryview) -> None:
        """Fetch, write and check a part, as often as it takes."""
        failures = corrupt = 0
        while not self._over.is_set():
            try:
                if self._fetch(part, slot, buffer) == part.sha256:
                    return self._draft.finish(part)
                corrupt += 1
                if corrupt == MAX_CORRUPT:
                    raise self._corrupt(part)
            except Unreachable as error:
                failures += 1
                if failures == self._config.attempts:
                    raise self._unreachable(part, slot, error) from error
                self._over.wait(max(error.retry_after_s, self._config.delay_s(failures)))
            slot.rest()
        raise Stopped

    def _fetch(self, part: Part, slot: _Slot, buffer: memoryview) -> str:
        """The checksum of what is in the file now."""
        digest = hashlib.sha256()
        slot.moved_at = time.monotonic()
        try:
            stream = self._open(part, slot.connection)
            while slot.got_bytes < part.length:
                count = self._filled(buffer[: part.length - slot.got_bytes], stream, slot)
                if count == 0:
                    raise Unreachable("the connection ended early")
                slot.moved_at = 0.0  # the disk may take its time
                offset = part.start + slot.got_bytes
                self._draft.write(part, offset, buffer[:count])
                digest.update(self._draft.read(part, offset, buffer[:count]))
                slot.got_bytes += count
                slot.moved_at = time.monotonic()
            return digest.hexdigest()
        except BaseException:
            slot.connection.close()  # the rest of the answer may yet come
            raise
        finally:
            slot.moved_at = 0.0

    def _filled(self, buffer: memoryview, stream: Stream, slot: _Slot) -> int:
        """How many bytes are in the buffer now: less than it holds only at the stream's end."""
        count = 0
        while count < len(buffer) and (came := stream.readinto(buffer[count:])):
            if self._over.is_set():
                raise Stopped
            slot.moved_at = time.monotonic()  # each arrival counts, on a slow line too
            count += came
        return count

    def _open(self, part: Part, connection: Connection) -> Stream:
        path = self._prefix + self._draft.manifest.files[part.file].path
        stream = connection.open(path, part.start, part.length, self._etags.get(part.file, ""))
        with self._lock:
            if self._etags.setdefault(part.file, stream.etag) != stream.etag:
                raise Changed(f"{path} has changed")
        return stream

    def _corrupt(self, part: Part) -> Corrupt:
        return Corrupt(
            f"{self._name(part)} came {MAX_CORRUPT} times with the wrong SHA-256",
            "Publish the model again",
        )

    def _unreachable(self, part: Part, slot: _Slot, error: Unreachable) -> WorkerError:
        silent = f"nothing came for {self._config.stall_timeout_s:g} s"
        return WorkerError(
            f"{self._name(part)} could not be fetched in {self._config.attempts} tries, the last "
            f"one: {silent if slot.stalled else error}",
            "Try again when the model store can be reached; what is here already is kept",
        )

    def _name(self, part: Part) -> str:
        path = self._draft.manifest.files[part.file].path
        return f"{self._prefix}{path}, bytes {part.start} to {part.end - 1},"
