"""A log that goes where it cannot be read again: passed on as it comes, with its end kept."""

import contextlib
import os
import threading
from typing import BinaryIO

KEPT_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
END_TIMEOUT_S = 1.0


class PassedLog:
    """What is written to `entry`, a descriptor, goes to the log; a thread sees to it.

    A thread, since whoever reads such a log may leave it standing for minutes.
    """

    def __init__(self, log: BinaryIO) -> None:
        """The log may be closed from now on."""
        source, self.entry = os.pipe()
        self._kept = b""
        pipes = (source, os.dup(log.fileno()))
        self._thread = threading.Thread(
            target=self._pass_on, args=pipes, name="triton-log", daemon=True
        )
        self._thread.start()

    def end(self) -> str:
        """The end of what has come so far."""
        return self._kept.decode(errors="replace")

    def wait_closed(self) -> None:
        """Wait until nobody can write any more and all has come, but not long."""
        self._thread.join(END_TIMEOUT_S)

    def _pass_on(self, source: int, target: int) -> None:
        try:
            while part := os.read(source, READ_BYTES):
                self._kept = (self._kept + part)[-KEPT_BYTES:]
                with contextlib.suppress(OSError):  # nobody may read it any more
                    while part:
                        part = part[os.write(target, part) :]
        finally:
            os.close(source)
            os.close(target)
