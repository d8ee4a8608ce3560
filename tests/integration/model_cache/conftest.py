"""A store with a model in it, and a cache of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_worker.cache import CacheConfig, TransferConfig
from synapse_worker.cache.manifest import Manifest
from tests.integration.model_cache.faulty_link import FaultyLink, publish_model, serving
from tests.patience import PATIENCE_S

# Quick to try again, but not for a machine that stands still: then parts are asked for twice.
TRANSFER = TransferConfig(
    connections=4, attempts=4, stall_timeout_s=PATIENCE_S, base_delay_s=0.01, max_delay_s=0.05
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def manifest(store: Path) -> Manifest:
    return publish_model(store)


@pytest.fixture
def link(store: Path) -> Iterator[FaultyLink]:
    with serving(FaultyLink(store)) as running:
        yield running


@pytest.fixture
def config(link: FaultyLink, tmp_path: Path) -> CacheConfig:
    return CacheConfig(link.url, tmp_path / "cache", transfer=TRANSFER)
