"""A child process with a log file, which never outlives the tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 20.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Daemon:
    """A running child, the leader of a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `ready`; fail with the end of the log when the child dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log_text()[-3000:]
                raise RuntimeError(f"{self.log.stem} did not become ready:\n{tail}")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[Daemon]:
    """Run `command` in the background for as long as the block lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    daemon = Daemon(process, log)
    try:
        yield daemon
    finally:
        daemon.stop()


def venv_program(setting: str, default: str, program: str) -> Path:
    """A program of one of the project's environments; `setting` names another place for it."""
    path = ROOT / os.environ.get(setting, default) / "bin" / program
    if not path.exists():
        raise RuntimeError(f"{path} is missing; run `make e2e`, which installs it")
    return path


def _die_with_parent() -> None:
    """So that even a killed test run leaves nothing behind (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
