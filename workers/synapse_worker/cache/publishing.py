"""Puts a model into a store: its files, then the manifest, then which version is the latest."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.draft import sync
from synapse_worker.cache.fetch import read
from synapse_worker.cache.manifest import (
    LATEST,
    MANIFEST,
    PART_BYTES,
    Manifest,
    ModelFile,
    content_version,
)
from synapse_worker.cache.s3_store import s3_client, s3_errors, split_address
from synapse_worker.cache.stores import Missing, Store, Unreachable, open_store
from synapse_worker.errors import WorkerError


@dataclass(frozen=True)
class Edition:
    """What is said of a model when it is published.

    Without a version it is named after its content: the same files are the same version. Without
    `memory_bytes` it is thought to take what its files take.
    """

    name: str
    version: str | None = None
    memory_bytes: int | None = None
    part_bytes: int = PART_BYTES


class Target(Protocol):
    """Where a model is published to."""

    def put_file(self, source: Path, path: str) -> None:
        """Copy a file there."""

    def put(self, content: bytes, path: str) -> None:
        """Write a small file in one step, and for good."""


def describe(folder: Path, edition: Edition) -> Manifest:
    """The manifest of a folder: every file in it is read once.

    Raises:
        WorkerError: there is nothing in it, or something that cannot be part of a model.
    """
    if not folder.is_dir():
        raise WorkerError(f"There is no folder {folder}", "Name the one that the model is in")
    paths = sorted(_files(folder))
    if not paths:
        raise WorkerError(f"There are no files in {folder}", "Name the folder of the model")
    with ThreadPoolExecutor() as threads:
        read = [threads.submit(_describe_file, folder, path, edition.part_bytes) for path in paths]
        files = tuple(each.result() for each in read)
    size = sum(file.size for file in files)
    manifest = Manifest(
        name=edition.name,
        version=edition.version or content_version(files),
        files=files,
        memory_bytes=size if edition.memory_bytes is None else edition.memory_bytes,
        part_bytes=edition.part_bytes,
    )
    return Manifest.parse(manifest.render(), str(folder))


def publish(folder: Path, destination: str, edition: Edition) -> Manifest:
    """Copy a model to `s3://bucket/prefix` or a folder, and make it the latest version.

    A version that is there with the same content is not copied again.

    Raises:
        WorkerError: the version is there with other content, or the model cannot be read or put.
    """
    try:
        manifest = describe(folder, edition)
        store = open_store(destination, TransferConfig())
        target = _target(destination)
        if not _is_there(store, manifest):
            prefix = f"{manifest.name}/{manifest.version}"
            for file in manifest.files:
                target.put_file(folder / file.path, f"{prefix}/{file.path}")
            target.put(manifest.render(), f"{prefix}/{MANIFEST}")
        target.put(f"{manifest.version}\n".encode(), f"{manifest.name}/{LATEST}")
    except (OSError, Unreachable) as error:
        raise WorkerError(f"{folder} cannot be published: {error}", "Try again") from error
    return manifest


def _is_there(store: Store, manifest: Manifest) -> bool:
    path = f"{manifest.name}/{manifest.version}/{MANIFEST}"
    try:
        found = Manifest.parse(read(store, path, TransferConfig(), threading.Event()), path)
    except Missing:
        return False
    if found.files != manifest.files:
        raise WorkerError(
            f"{manifest.name} {manifest.version} is in the store with other files",
            "Give the new ones another --version: who has this one would never notice",
        )
    return found == manifest


def _files(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = str((Path(root) / name).relative_to(folder))
            if path != MANIFEST:  # of the store it was fetched from
                yield path


def _describe_file(folder: Path, path: str, part_bytes: int) -> ModelFile:
    whole, parts, size = hashlib.sha256(), [], 0
    with (folder / path).open("rb") as file:
        while content := file.read(part_bytes):
            whole.update(content)
            parts.append(hashlib.sha256(content).hexdigest())
            size += len(content)
    return ModelFile(path, size, whole.hexdigest(), tuple(parts))


def _target(destination: str) -> Target:
    scheme, separator, rest = destination.partition("://")
    if separator and scheme == "s3":
        return S3Target(rest)
    if separator and scheme != "file":
        raise WorkerError(f"Nothing can be published to {scheme}://", "Use s3:// or a folder")
    return FolderTarget(Path(rest if separator else destination))


class FolderTarget:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        """It is made when something is put there."""
        self._root = root

    def put_file(self, source: Path, path: str) -> None:
        """Copy a file; one that is there is replaced as a whole."""
        draft = self._draft(path)
        shutil.copyfile(source, draft)
        self._place(draft, path)

    def put(self, content: bytes, path: str) -> None:
        """Write a small file in one step, and for good."""
        draft = self._draft(path)
        draft.write_bytes(content)
        self._place(draft, path)

    def _draft(self, path: str) -> Path:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.{os.getpid()}")

    def _place(self, draft: Path, path: str) -> None:
        sync(draft)
        draft.rename(self._root / path)
        sync((self._root / path).parent)


class S3Target:
    """A store in S3."""

    def __init__(self, address: str) -> None:
        """`bucket/prefix`; boto3 is needed."""
        self._bucket, self._prefix = split_address(address)
        self._client: Any = s3_client(TransferConfig(), TransferConfig().attempts)

    def put_file(self, source: Path, path: str) -> None:
        """Upload a file, in parts if it is large."""
        with s3_errors(f"s3://{self._bucket}/{self._prefix}{path}"):
            self._client.upload_file(str(source), self._bucket, self._prefix + path)

    def put(self, content: bytes, path: str) -> None:
        """An object is replaced as a whole."""
        with s3_errors(f"s3://{self._bucket}/{self._prefix}{path}"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content)
