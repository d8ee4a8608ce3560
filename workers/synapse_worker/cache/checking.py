"""Checksums of whole files, worked out while their parts come in.

Parts are checked as they come off the wire. This reads them back in order from the page cache,
so that what is checked is what lies on the disk, that of an earlier process included. The thread
that brought a part does it for as far as the file is there, if no other is at it: one connection
of many pauses while the others keep the link busy, and nothing is left to do in the end.
"""

import hashlib
import threading

from synapse_worker.cache.draft import Draft
from synapse_worker.cache.manifest import Part
from synapse_worker.errors import WorkerError


class Corrupt(WorkerError):
    """What the store has is not what its manifest says."""


class FileCheck:
    """One file of a draft. `follow` may be called from several threads."""

    def __init__(self, draft: Draft, file: int, parts: list[Part]) -> None:
        """`parts` in order."""
        self._draft = draft
        self._file = draft.manifest.files[file]
        self._parts = parts
        self._digest = hashlib.sha256()
        self._checked = 0
        self._busy = threading.Lock()

    @property
    def is_whole(self) -> bool:
        """Whether all of the file was there and right."""
        return self._checked == len(self._parts)

    def follow(self) -> list[Part]:
        """Go on as far as the file is there; at its end, the parts that are wrong on the disk.

        Those are forgotten, and must be fetched again.

        Raises:
            Corrupt: fetching again cannot help.
        """
        while self._can_go_on():
            # Whoever holds it looks once more after letting go: nothing that came is left.
            if not self._busy.acquire(blocking=False):
                return []
            try:
                if wrong := self._advance():
                    return wrong
            finally:
                self._busy.release()
        return []

    def _can_go_on(self) -> bool:
        at = self._checked
        return at < len(self._parts) and self._draft.has(self._parts[at].file, at)

    def _advance(self) -> list[Part]:
        while self._can_go_on():
            part = self._parts[self._checked]
            self._draft.read(part.file, part.start, part.length, self._digest)
            last = self._checked + 1 == len(self._parts)
            if last and self._digest.hexdigest() != self._file.sha256:
                return self._start_over()
            self._checked += 1
        return []

    def _start_over(self) -> list[Part]:
        wrong = [part for part in self._parts if not self._draft.is_intact(part)]
        for part in wrong:
            self._draft.forget(part)
        self._digest, self._checked = hashlib.sha256(), 0
        if not wrong:
            raise Corrupt(
                f"{self._file.path} has the right parts and the wrong SHA-256 as a whole",
                "The manifest contradicts itself: publish the model again",
            )
        return wrong
