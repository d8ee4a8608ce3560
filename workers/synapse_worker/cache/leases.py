"""Who uses which model: locks that the kernel lets go of when their process dies."""

import fcntl
import os
import time
from pathlib import Path
from typing import Self


class Lease:
    """A model that may be used: while this is held, no process evicts it.

    `path` is the model's folder, complete and checked. Release it, or leave its `with` block.
    """

    def __init__(self, name: str, version: str, path: Path, memory_bytes: int, lock: int) -> None:
        """Made by `ModelCache.lease`; `lock` is a descriptor with a shared lock, owned from now."""
        self.name = name
        self.version = version
        self.path = path
        self.memory_bytes = memory_bytes
        self._lock = lock
        _touch(lock)

    def release(self) -> None:
        """Give it back, used until now; a second time does nothing."""
        if self._lock >= 0:
            _touch(self._lock)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_shared(path: Path) -> int:
    """A descriptor with a shared lock on `path`, made if it is not there; waits for it."""
    return _locked(path, fcntl.LOCK_SH)


def lock_exclusive(path: Path) -> int:
    """A descriptor with the only lock on `path`, made if it is not there; waits for it."""
    return _locked(path, fcntl.LOCK_EX)


def try_lock(path: Path) -> int | None:
    """A descriptor with the only lock on `path`, or None where anybody else holds one."""
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def is_locked(path: Path) -> bool:
    """Whether anybody, of this process too, holds a lock on it.

    Asking takes the lock for a moment: two who ask at once may see each other.
    """
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _touch(descriptor: int) -> None:
    """To the nanosecond: the kernel's own time of a change moves on every few milliseconds only."""
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))


def _locked(path: Path, operation: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
