"""What a model consists of: its files, their sizes and their checksums. Pure.

A store holds `<model>/<version>/manifest.json` with the files beside it, and `<model>/latest` with
the name of a version. The manifest is written after the files and `latest` after both, so that
whoever follows them finds everything there.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

from synapse_worker.config import MODEL_NAME
from synapse_worker.errors import WorkerError

MANIFEST = "manifest.json"
LATEST = "latest"
FORMAT = 1
PART_BYTES = 16 << 20
"""Two parts a second on a connection to S3; a failure costs one. 100 GB are 6,000 of them."""
MAX_MANIFEST_BYTES = 64 << 20

SHA256_OF_NOTHING = hashlib.sha256().hexdigest()
SHA256 = re.compile(r"[0-9a-f]{64}")
PATH_PART = re.compile(r"[^/\\\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file. `path` is relative, with slashes.

    `sha256` names its content for people and tools; what is checked are its `parts`, which several
    cores can do at a time, and which need not be done again after a break.
    """

    path: str
    size: int
    sha256: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a file that is fetched and checked as one. `file` counts the manifest's files."""

    file: int
    number: int
    start: int
    length: int
    sha256: str

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version of a model. `memory_bytes` is about what it takes when loaded."""

    name: str
    version: str
    files: tuple[ModelFile, ...]
    memory_bytes: int
    part_bytes: int = PART_BYTES

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    def parts(self) -> list[Part]:
        """All parts of all files, the first ones of each before the second ones.

        In that order several files grow beside each other, and so does the work on them.
        """
        found = [
            Part(
                file=number,
                number=index,
                start=index * self.part_bytes,
                length=min(self.part_bytes, file.size - index * self.part_bytes),
                sha256=digest,
            )
            for number, file in enumerate(self.files)
            for index, digest in enumerate(file.parts)
        ]
        return sorted(found, key=lambda part: (part.number, part.file))

    def render(self) -> bytes:
        """As the bytes of `manifest.json`; equal manifests have equal bytes."""
        content = {"format": FORMAT, "total_bytes": self.total_bytes, **asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Self:
        """Read and check one; `where` is what the error calls it.

        Raises:
            WorkerError: it cannot be read, contradicts itself, or names a path outside its folder.
        """
        try:
            return cls._read(json.loads(raw))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            cause = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise WorkerError(
                f"{where} is no manifest of a model: {cause}",
                "Publish the model again with `python -m synapse_worker.cache publish`",
            ) from error

    @classmethod
    def _read(cls, content: Mapping[str, Any]) -> Self:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        name, version = checked_name(content["name"]), checked_name(content["version"])
        part_bytes = _count(content["part_bytes"])
        if part_bytes == 0:
            raise ValueError("parts of no bytes")
        files = tuple(_file(entry, part_bytes) for entry in content["files"])
        _check_paths([file.path for file in files])
        manifest = cls(name, version, files, _count(content["memory_bytes"]), part_bytes)
        if manifest.total_bytes != content["total_bytes"]:
            raise ValueError("the sizes of the files do not add up")
        return manifest


def content_version(files: tuple[ModelFile, ...]) -> str:
    """A version that follows from the content: the same files always make the same one."""
    lines = "".join(f"{file.sha256} {file.path}\n" for file in sorted(files, key=lambda f: f.path))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def checked_name(name: object) -> str:
    """A model's name or version, which become part of paths and addresses.

    Raises:
        ValueError: it is not plain.
    """
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of letters, digits, dots, dashes and underscores")
    return name


def _file(entry: Mapping[str, Any], part_bytes: int) -> ModelFile:
    size, parts = _count(entry["size"]), tuple(entry["parts"])
    if len(parts) != -(-size // part_bytes):
        raise ValueError(f"{entry['path']!r} has {len(parts)} checksums of parts")
    if len(parts) <= 1 and (*parts, SHA256_OF_NOTHING)[0] != entry["sha256"]:
        raise ValueError(f"{entry['path']!r} has a checksum other than that of its only part")
    for digest in (entry["sha256"], *parts):
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r} is no SHA-256")
    return ModelFile(_path(entry["path"]), size, entry["sha256"], parts)


def _path(path: object) -> str:
    parts = path.split("/") if isinstance(path, str) else []
    if not parts or not all(PATH_PART.fullmatch(p) and p not in (".", "..") for p in parts):
        raise ValueError(f"{path!r} is not a path within the model's folder")
    if path == MANIFEST:
        raise ValueError(f"a file of the model may not be called {MANIFEST}")
    return "/".join(parts)


def _check_paths(paths: list[str]) -> None:
    if not paths:
        raise ValueError("there are no files")
    for path, following in pairwise(sorted(paths, key=lambda path: path.split("/"))):
        if following == path or following.startswith(f"{path}/"):
            raise ValueError(f"{path!r} is there twice, or both a file and a folder")


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number of bytes")
    return value
