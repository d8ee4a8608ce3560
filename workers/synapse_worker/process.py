"""One run of Triton, from spawn to the last of its processes being gone."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import BinaryIO

from synapse_worker.passed_log import PassedLog
from synapse_worker.shared_memory import new_region_prefix, remove_stale_regions
from synapse_worker.triton import Ports, TritonProgram

MAX_LOG_BYTES = 16 * 1024 * 1024
COPY_BYTES = 1024 * 1024
GROUP_POLL_S = 0.02
GROUP_TIMEOUT_S = 5.0


class TritonProcess:
    """A running Triton and its process group."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        log_file: Path,
        log_offset: int | None,
        passed: PassedLog | None = None,
    ) -> None:
        """Made by `spawn`."""
        self._process = process
        self._log_file = log_file
        self._log_offset = log_offset
        self._passed = passed

    @classmethod
    async def spawn(cls, program: TritonProgram, ports: Ports, log_file: Path) -> "TritonProcess":
        """Start Triton in a process group of its own, writing straight to the log file.

        To one that cannot be read again, as a container's /dev/stdout, its log is passed on.
        """
        remove_stale_regions()
        with open_log(log_file) as log:
            passed = None if log.seekable() else PassedLog(log)
            try:
                process = await asyncio.create_subprocess_exec(
                    *program.command(ports, new_region_prefix(), os.getpid()),
                    env=program.environment(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log if passed is None else passed.entry,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                if passed is not None:
                    os.close(passed.entry)
            return cls(process, log_file, log.tell() if passed is None else None, passed)

    @property
    def pid(self) -> int:
        """Triton's own process id, which is also its group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while Triton runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for Triton itself to end."""
        return await self._process.wait()

    def log_since_start(self) -> str:
        """What this run has logged so far; the end of it where it is passed on."""
        if self._passed is not None:
            return self._passed.end()
        if self._log_offset is None:
            return ""
        try:
            with self._log_file.open("rb") as log:
                log.seek(self._log_offset)
                return log.read(MAX_LOG_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def bound_log(self) -> None:
        """Move what the log holds aside when it is too long; Triton goes on writing to it.

        A link is left alone: /dev/stdout may be a file, and is not ours to move or to cut.

        What is written just between the copy and the cut is lost.
        """
        if self._log_offset is None or self._log_file.is_symlink():
            return
        with contextlib.suppress(OSError):
            if self._log_file.stat().st_size > MAX_LOG_BYTES:
                with self._log_file.open("rb+") as log, _older(self._log_file).open("wb") as older:
                    log.seek(-MAX_LOG_BYTES, os.SEEK_END)
                    shutil.copyfileobj(log, older, COPY_BYTES)
                    log.truncate(0)
                self._log_offset = 0

    async def stop(self, timeout_s: float) -> None:
        """Let Triton finish what it has, for so long; then leave nothing of it behind."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), timeout_s)
        await self.kill()

    async def kill(self) -> None:
        """End every process of the group now, and remove its shared memory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()
        deadline = asyncio.get_running_loop().time() + GROUP_TIMEOUT_S
        while _group_exists(self.pid) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(GROUP_POLL_S)
        if self._passed is not None:
            await asyncio.to_thread(self._passed.wait_closed)
        remove_stale_regions()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _older(log_file: Path) -> Path:
    return log_file.with_name(log_file.name + ".1")


def open_log(path: Path) -> BinaryIO:
    """The file at its end, the one before moved aside if that is too long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # such as /dev/stdout in a container
        return path.open("wb")
    if path.is_symlink():  # such as /dev/stdout where that is a file: it is somebody else's
        return path.open("ab")
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(_older(path))
    return path.open("ab")
