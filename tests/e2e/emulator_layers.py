"""Unpacks each layer once for all the functions that have it; run by MiniStack's own Python.

MiniStack unpacks all layers anew for each environment that it starts, some 3,000 files, which takes
most of a second of its own time: meanwhile it answers nobody. At AWS a layer lies in /opt, where
nobody can write.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import types
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime  # type: ignore[import-not-found]

PREFIX = "layer_"
"""How MiniStack names the archives of layers, and the folders that it unpacks them into."""

_unpacked: dict[str, Path] = {}
_unpacking = threading.Lock()


class Archive(zipfile.ZipFile):
    """A zip file; what is in one of a layer is linked to where it was unpacked once."""

    def namelist(self) -> list[str]:
        """What MiniStack has yet to look through for paths that lead elsewhere."""
        return [] if self._is_layer and self._digest in _unpacked else super().namelist()

    def extractall(self, path: Any = None, members: Any = None, pwd: bytes | None = None) -> None:
        if not self._is_layer:
            super().extractall(path, members, pwd)
            return
        with _unpacking:
            if self._digest not in _unpacked:
                folder = Path(tempfile.mkdtemp(prefix=PREFIX))
                super().extractall(folder)
                _unpacked[self._digest] = folder
        for entry in _unpacked[self._digest].iterdir():
            (Path(path) / entry.name).symlink_to(entry)

    @property
    def _is_layer(self) -> bool:
        return Path(str(self.filename)).name.startswith(PREFIX)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()


def install() -> None:
    """Have MiniStack's functions started so."""
    lambda_runtime.zipfile = types.SimpleNamespace(
        ZipFile=Archive, BadZipFile=zipfile.BadZipFile, LargeFileError=zipfile.LargeZipFile
    )
