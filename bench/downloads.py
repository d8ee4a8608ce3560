"""Model downloads beside the link they come over, and beside a plain copy in one stream."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import shutil
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.link import link
from synapse_worker.cache.config import CacheConfig, TransferConfig
from synapse_worker.cache.manifest import Manifest, Part
from synapse_worker.cache.model_cache import ModelCache
from synapse_worker.cache.publishing import Edition, publish

MB = 1_000_000
MODEL = "model"
MODEL_BYTES = 1 << 30
FILES = 2
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """Bytes a second, 0 no limit; `connection_rate` of each connection, as S3 has one."""

    title: str
    rate: float
    connection_rate: float = 0.0


LINKS = (
    Link("200 MB/s", 200 * MB),
    Link("200 MB/s, 25 MB/s a connection", 200 * MB, 25 * MB),
    Link("loopback, no limit", 0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Rates over one link, bytes a second (medians), and ours over the raw one by pairs.

    `single` is one run.
    """

    link: Link
    raw: float
    cache: float
    single: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Found:
    """The rates, and those of one core that could bound them: SHA-256 in memory."""

    model_bytes: int
    rows: list[Row]
    sha256: float


def measure(rounds: int, model_bytes: int = MODEL_BYTES) -> Found:
    """Each round: the raw link and the cache, one after the other; at the end a plain copy."""
    with tempfile.TemporaryDirectory(prefix="synapse-bench-") as name:
        folder = Path(name)
        manifest = _published(folder, model_bytes)
        rows = [_row(folder, manifest, each, rounds) for each in LINKS]
    return Found(manifest.total_bytes, rows, _sha256_rate())


def _published(folder: Path, model_bytes: int) -> Manifest:
    source = folder / MODEL
    source.mkdir()
    for number in range(FILES):
        with (source / f"{number}.bin").open("wb") as file:
            for _ in range(model_bytes // FILES // BUFFER_BYTES):
                file.write(os.urandom(BUFFER_BYTES))
    return publish(source, str(folder / "store"), Edition(MODEL, "1"))


def _row(folder: Path, manifest: Manifest, over: Link, rounds: int) -> Row:
    raw, ours = [], []
    with link(folder / "store", over.rate, over.connection_rate) as url:
        for _ in range(rounds):
            raw.append(_rate(manifest, lambda: _read_and_drop(url, manifest)))
            ours.append(_rate(manifest, lambda: _fetch(url, folder / "cache")))
            shutil.rmtree(folder / "cache")
        single = _rate(manifest, lambda: _copy(url, manifest, folder / "copy"))
        (folder / "copy").unlink()
    ratios = [mine / link_rate for mine, link_rate in zip(ours, raw, strict=True)]
    return Row(
        link=over,
        raw=statistics.median(raw),
        cache=statistics.median(ours),
        single=single,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def _rate(manifest: Manifest, act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return manifest.total_bytes / (time.perf_counter() - started)


def _fetch(url: str, folder: Path) -> None:
    """All that `ensure` does: fetch, check parts and files, bring to the disk, publish."""
    asyncio.run(ModelCache(CacheConfig(url, folder)).ensure(MODEL))


def _copy(url: str, manifest: Manifest, target: Path) -> None:
    """What a download amounts to without a cache: one stream to a file, nothing checked."""
    for file in manifest.files:
        address = f"{url}/{MODEL}/{manifest.version}/{file.path}"
        with urllib.request.urlopen(address) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, BUFFER_BYTES)


def _read_and_drop(url: str, manifest: Manifest) -> None:
    """The link itself: the same ranges over as many connections, read and thrown away."""
    parts = manifest.parts()
    each = TransferConfig().connections
    threads = [
        threading.Thread(target=_drop_parts, args=(url, manifest, parts[number::each]))
        for number in range(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _drop_parts(url: str, manifest: Manifest, parts: list[Part]) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    buffer = bytearray(BUFFER_BYTES)
    for part in parts:
        path = f"/{MODEL}/{manifest.version}/{manifest.files[part.file].path}"
        headers = {"Range": f"bytes={part.start}-{part.end - 1}"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        got = 0
        while count := response.readinto(buffer):
            got += count
        if got != part.length:
            raise RuntimeError(f"{got} bytes of {part}")
    connection.close()


def _sha256_rate() -> float:
    content = os.urandom(64 << 20)
    started = time.perf_counter()
    hashlib.sha256(content).digest()
    return len(content) / (time.perf_counter() - started)
