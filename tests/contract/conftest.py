"""One fixture per port; each runs its suite once for every adapter in `openers`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from synapse.ports import (
    BlobStore,
    IdleMeter,
    InFlight,
    JobStore,
    KeyStore,
    ProfileStore,
    Registry,
    WorkerRegistry,
)
from tests.contract.openers import (
    BATCH_STARTERS,
    BLOB_STORES,
    IDLE_METERS,
    IN_FLIGHT,
    JOB_QUEUES,
    JOB_STORES,
    KEY_STORES,
    PROFILE_STORES,
    REGISTRIES,
    USAGE_STORES,
    WORKER_REGISTRIES,
    QueueCase,
    StarterCase,
    UsageCase,
)
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=JOB_STORES)
async def store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[JobStore]:
    async with JOB_STORES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=JOB_QUEUES)
async def queue_case(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[QueueCase]:
    async with JOB_QUEUES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=BLOB_STORES)
async def blobs(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[BlobStore]:
    async with BLOB_STORES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=REGISTRIES)
async def registry(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[Registry]:
    async with REGISTRIES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=BATCH_STARTERS)
async def starter_case(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[StarterCase]:
    async with BATCH_STARTERS[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=IN_FLIGHT)
async def in_flight(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[InFlight]:
    async with IN_FLIGHT[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=WORKER_REGISTRIES)
async def worker_registry(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[WorkerRegistry]:
    async with WORKER_REGISTRIES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=PROFILE_STORES)
async def profile_store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[ProfileStore]:
    async with PROFILE_STORES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=KEY_STORES)
async def key_store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[KeyStore]:
    async with KEY_STORES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=USAGE_STORES)
async def usage_case(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[UsageCase]:
    async with USAGE_STORES[request.param](clock, tmp_path) as opened:
        yield opened


@pytest.fixture(params=IDLE_METERS)
async def idle_meter(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[IdleMeter]:
    async with IDLE_METERS[request.param](clock, tmp_path) as opened:
        yield opened
