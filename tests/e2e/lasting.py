"""An emulator whose power can be cut: what AWS keeps outlives it. And its functions' clock."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.emulator import Emulator, started
from tests.ports import free_port

SAVED_WITHIN_S = 60.0


class LastingEmulator:
    """Start it, cut its power, start it again: the port and what it holds stay."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._state = directory / "state"
        self._saved = directory / "saved"
        self._clock = directory / "ahead_s"
        self._ahead_s = 0.0
        self._starts = 0
        self._running = ExitStack()
        self.emulator = self.start()

    def start(self) -> Emulator:
        """Start it with what it holds."""
        self._starts += 1
        settings = {
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._state),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._directory / "s3"),
            "PYTHONPATH": str(Path(__file__).with_name("passing_time")),
            "TEST_SAVED_FILE": str(self._saved),
            "TEST_CLOCK_FILE": str(self._clock),
        }
        log = self._directory / f"ministack-{self._starts}.log"
        self.emulator = self._running.enter_context(
            started(self._directory, self._port, log, settings)
        )
        return self.emulator

    def cut_power(self) -> None:
        """Kill it and all the functions that it runs, at once and without a word."""
        self._saved.unlink(missing_ok=True)
        os.kill(self._pid, signal.SIGUSR1)
        self.emulator.daemon.process.wait(SAVED_WITHIN_S)
        deadline = time.monotonic() + SAVED_WITHIN_S
        while not self._saved.exists():
            assert time.monotonic() < deadline, "what the emulator held was not saved"
            time.sleep(0.05)
        self._running.close()
        shutil.rmtree(self._directory / "tmp")

    def freeze(self) -> None:
        """Have it answer nobody: connections are taken, and that is all."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, also with what came in meanwhile."""
        os.kill(self._pid, signal.SIGCONT)

    def pass_time(self, seconds: float) -> None:
        """Set the clocks of all functions ahead, as if nothing had happened for so long."""
        self._ahead_s += seconds
        self._clock.write_text(str(self._ahead_s))

    def now(self) -> float:
        """What time it is for the functions."""
        return time.time() + self._ahead_s

    def close(self) -> None:
        """End it."""
        self._running.close()

    @property
    def _pid(self) -> int:
        return self.emulator.daemon.process.pid
