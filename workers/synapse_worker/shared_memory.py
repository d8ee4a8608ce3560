"""Names for Triton's shared memory regions, and the sweeping up of those the dead left behind.

Triton's Python backend removes its regions on a clean exit only; a killed one leaves megabytes in
/dev/shm. Each instance therefore holds a lock file beside its regions while it lives.
"""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

SHM_DIR = Path(os.environ.get("SYNAPSE_SHM_DIR", "/dev/shm"))
"""Where regions lie; elsewhere if `workers/shm` was preloaded, for where there is no /dev/shm."""

PREFIX = "synapse-"
LOCK_NAME = "lock"


def new_region_prefix() -> str:
    """A prefix no other instance on this machine uses."""
    return f"{PREFIX}{secrets.token_hex(6)}-"


def lock_file(prefix: str, folder: Path = SHM_DIR) -> Path:
    """The file whose lock says that the regions of `prefix` are in use."""
    return folder / f"{prefix}{LOCK_NAME}"


def remove_stale_regions(folder: Path = SHM_DIR) -> list[str]:
    """Delete regions whose owner is dead; return the names of what was deleted."""
    removed: list[str] = []
    for lock in folder.glob(f"{PREFIX}*-{LOCK_NAME}"):
        removed += _remove_if_free(lock)
    return removed


def _remove_if_free(lock: Path) -> list[str]:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # another user's, or swept up by another process just now
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return []
    else:
        return _remove_with_prefix(lock.parent, lock.name.removesuffix(LOCK_NAME))
    finally:
        os.close(descriptor)


def _remove_with_prefix(folder: Path, prefix: str) -> list[str]:
    removed = []
    for path in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path.name)
    return removed
