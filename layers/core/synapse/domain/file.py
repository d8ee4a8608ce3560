"""Files that callers upload and that batches write, and the rules of their life."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from synapse.domain.errors import InvalidRequest

FileId = NewType("FileId", str)

MAX_FILE_BYTES = 200 * 1024 * 1024
"""The largest input of a batch."""

MAX_ID_CHARS = 100
"""Of any id that is ever given."""

MAX_FILENAME_CHARS = 512
MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 30 * 86_400
"""A file lives that long unless it is told to go earlier; no file lives longer."""

MAX_PAGE = 10_000


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is said of a file beside its bytes; `expires_after_s` counts from its creation."""

    filename: str
    purpose: Purpose
    expires_after_s: int = MAX_EXPIRY_S
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file whose bytes are all there, under `blob_key`. Times are seconds since the epoch."""

    id: FileId
    filename: str
    purpose: Purpose
    size_bytes: int
    created_at: float
    expires_at: float
    blob_key: str
    tenant: str = "default"

    def is_expired(self, now: float) -> bool:
        """Whether it is as good as gone."""
        return self.expires_at <= now


def uploadable(purpose: str) -> Purpose:
    """The purpose of a file that a caller brings.

    Raises:
        InvalidRequest: files are not taken for that.
    """
    if purpose != Purpose.BATCH:
        raise InvalidRequest(
            f"purpose: {purpose[:50]!r} is not served; files are taken for: {Purpose.BATCH}",
            param="purpose",
        )
    return Purpose.BATCH


def checked_filename(name: str, param: str = "file") -> str:
    """The name of a file without the folders that some clients put before it.

    Raises:
        InvalidRequest: nothing is left of it, or too much.
    """
    bare = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
    if not bare or not bare.isprintable():
        raise InvalidRequest(f"{param}: its filename is missing or not printable", param=param)
    if len(bare) > MAX_FILENAME_CHARS:
        raise InvalidRequest(
            f"{param}: its filename has more than {MAX_FILENAME_CHARS} characters", param=param
        )
    return bare


def checked_expiry(anchor: str | None, seconds: int | str | None) -> int:
    """For how many seconds a file is kept, of OpenAI's `expires_after`.

    Raises:
        InvalidRequest: only one of the two is given, or one has a value that is not served.
    """
    if anchor is None and seconds is None:
        return MAX_EXPIRY_S
    if anchor != "created_at":
        raise InvalidRequest(
            "expires_after.anchor: must be 'created_at'", param="expires_after.anchor"
        )
    text = str(seconds)
    if not (text.isascii() and text.isdigit() and MIN_EXPIRY_S <= int(text[:9]) <= MAX_EXPIRY_S):
        raise InvalidRequest(
            f"expires_after.seconds: must be a whole number from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}",
            param="expires_after.seconds",
        )
    return int(text)
