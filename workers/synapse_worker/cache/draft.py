"""A model that is being fetched: its files, growing, and a journal of the parts that are there.

What the journal says may be wrong after a power cut, and the disk may lie: hence a part counts
only once it was read back in this process and is what the manifest says.
"""

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any

from synapse_worker.cache.manifest import MANIFEST, Manifest, Part
from synapse_worker.errors import WorkerError

JOURNAL = "journal"
FILES = "files"
READ_BYTES = 256 << 10
"""Stays in a core's own cache between being read and being hashed."""
SYNC_FILE_RANGE_WRITE = 2

_libc: Any = ctypes.CDLL(None, use_errno=True)


class Draft:
    """The folder of a model that is not whole yet. Held open by one process, under its lock.

    Its methods may be called from several threads, for different parts.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Go on with what is in the folder if that is the same model, else start over.

        Raises:
            OSError: the disk is full, for one.
        """
        self._folder = folder
        self.manifest = manifest
        self._files = [_File(folder / FILES / file.path, file.size) for file in manifest.files]
        self._done: set[tuple[int, int]] = set()
        self._journal = os.open(
            folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._read_journal()

    @property
    def files(self) -> Path:
        """The folder that is published once all is there."""
        return self._folder / FILES

    def left_behind(self) -> list[Part]:
        """The parts that an earlier process had finished; they are to be checked."""
        return [part for part in self.manifest.parts() if (part.file, part.number) in self._done]

    def missing(self) -> list[Part]:
        """The other parts, in the order to fetch them."""
        return [p for p in self.manifest.parts() if (p.file, p.number) not in self._done]

    def write(self, part: Part, offset: int, content: memoryview) -> None:
        """Some bytes of a part, at their place in the file."""
        self._files[part.file].write(content, offset)

    def is_intact(self, part: Part) -> bool:
        """Whether what is in the file is this part."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(min(READ_BYTES, part.length)))
        for offset in range(part.start, part.end, READ_BYTES):
            length = min(READ_BYTES, part.end - offset)
            digest.update(self.read(part, offset, buffer[:length]))
        return digest.hexdigest() == part.sha256

    def read(self, part: Part, offset: int, buffer: memoryview) -> memoryview:
        """Fill the buffer with what is in the file of a part."""
        self._files[part.file].read(buffer, offset)
        return buffer

    def finish(self, part: Part) -> None:
        """A part is there and intact. Its way to the disk begins now."""
        self._files[part.file].start_writeback(part.start, part.length)
        self._note("+", part)

    def forget(self, part: Part) -> None:
        """A part is not what it should be after all."""
        self._note("-", part)

    def seal(self) -> None:
        """Write the manifest beside the files and have all of it on the disk, for good."""
        for file in self._files:
            file.sync()
        manifest = self.files / MANIFEST
        manifest.write_bytes(self.manifest.render())
        sync(manifest)
        for folder in {file.path.parent for file in self._files} | {self.files}:
            while folder != self._folder:
                sync(folder)
                folder = folder.parent

    def close(self) -> None:
        """Let go of its files."""
        for file in self._files:
            file.close()
        os.close(self._journal)

    def _note(self, sign: str, part: Part) -> None:
        os.write(self._journal, f"{sign} {part.file} {part.number}\n".encode())

    def _read_journal(self) -> None:
        text = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        # The process may have died in the middle of a line: that one never was.
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._journal, len(whole))
        known = {(part.file, part.number) for part in self.manifest.parts()}
        for line in whole.decode(errors="replace").splitlines():
            sign, *rest = line.split(" ")
            if len(rest) != 2 or not all(number.isdecimal() for number in rest):
                continue
            part = (int(rest[0]), int(rest[1]))
            if sign == "+" and part in known:
                self._done.add(part)
            elif sign == "-":
                self._done.discard(part)


class _File:
    """A file of full size from the start: the disk cannot run full half-way."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(self._descriptor).st_size != size:
                os.ftruncate(self._descriptor, size)
            if size:
                os.posix_fallocate(self._descriptor, 0, size)
        except BaseException:
            self.close()
            raise

    def write(self, content: memoryview, offset: int) -> None:
        while content:
            count = os.pwrite(self._descriptor, content, offset)
            content, offset = content[count:], offset + count

    def read(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if count == 0:
                raise WorkerError(f"{self.path} has become shorter", "Leave the cache alone")
            buffer, offset = buffer[count:], offset + count

    def start_writeback(self, start: int, length: int) -> None:
        """So that little is left to wait for in the end; it is no matter if this fails.

        Left alone, Linux holds back up to a tenth of the memory, and half a minute.
        """
        _libc.sync_file_range(
            ctypes.c_int(self._descriptor),
            ctypes.c_int64(start),
            ctypes.c_int64(length),
            ctypes.c_uint(SYNC_FILE_RANGE_WRITE),
        )

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk for good."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
