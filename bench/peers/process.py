"""A peer's process and all that it starts: begun, measured, killed, gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.peers.catalogue import Peer, environ_of
from bench.processor import family

STOP_S = 20.0
TAIL = 1500


class Running:
    """One peer at one workload; `start` begins it again over the same folder once it is killed."""

    def __init__(self, peer: Peer, workload: str, folder: Path) -> None:
        self.peer = peer
        self.workload = workload
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder.parent / f"{folder.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command; returns at once."""
        command = self.peer.command(self.workload, self.port, self.folder)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**environ_of(self.workload), **self.peer.environ},
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL to every process of it at once, as a machine that loses its power would."""
        for pid in with_session(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """End it as its user would, and what is left after that as nobody would."""
        if self._process is None:
            return
        members = with_session(self._process.pid) if not self.has_ended else []
        if not self.has_ended:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def memory_mib(self) -> float:
        """Proportional set size of all its processes: what is shared is counted once."""
        return sum(_pss_mib(pid) for pid in with_session(self.pid))

    @property
    def pid(self) -> int:
        """The process that the command became; it leads a session of its own."""
        assert self._process is not None
        return self._process.pid

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-TAIL:]


@contextlib.contextmanager
def running(peer: Peer, workload: str) -> Iterator[Running]:
    """A peer that is started and, on leaving, gone with all that it made."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name, "data")
        folder.mkdir()
        process = Running(peer, workload, folder)
        try:
            process.start()
            yield process
        finally:
            process.stop()


def with_session(pid: int) -> list[int]:
    """A process and all its descendants, and those that share its session (daemons of it)."""
    found = family(pid)
    return found + [each for each in _of_session(pid) if each not in found]


def _of_session(leader: int) -> list[int]:
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(folder.name)) == leader:
                members.append(int(folder.name))
    return members


def _pss_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) / 1024


def free_port() -> int:
    """One whose neighbour is free too: some peers need a second."""
    while True:
        with socket.socket() as probe, socket.socket() as neighbour:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError):
                neighbour.bind(("127.0.0.1", port + 1))
                return port
