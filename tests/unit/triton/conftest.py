"""An engine and the Triton it speaks to, over a socket in a folder of their own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from synapse.adapters.triton.connection import ConnectionSettings
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.factories import a_chat_model, a_model, a_pool
from tests.unit.triton.fake_triton import GENERATOR, TEXTS, FakeTriton
from tests.unit.triton.wire import Wire, wire


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: that of a unix socket holds 107 characters."""
    with tempfile.TemporaryDirectory(prefix="sy-") as name:
        yield Path(name)


@pytest.fixture
async def triton(sockets: Path) -> AsyncIterator[FakeTriton]:
    async with FakeTriton(f"unix:{sockets}/triton") as fake:
        yield fake


@pytest.fixture
async def line(triton: FakeTriton, sockets: Path) -> AsyncIterator[Wire]:
    """A wire to Triton that can be cut; `far_pool` is at its end."""
    async with wire(f"{sockets}/wire", f"{sockets}/triton") as made:
        yield made


@pytest.fixture
async def engine() -> AsyncIterator[TritonEngine]:
    async with TritonEngine(ConnectionSettings(connect_timeout_s=5.0)) as made:
        yield made


@pytest.fixture
def generator() -> ModelSpec:
    return a_chat_model(GENERATOR)


@pytest.fixture
def texts() -> ModelSpec:
    return a_model(TEXTS)


@pytest.fixture
def pool(triton: FakeTriton) -> Pool:
    return a_pool(endpoint=triton.address)


@pytest.fixture
def far_pool(line: Wire, sockets: Path) -> Pool:
    """Reaches Triton over `line`."""
    return a_pool(endpoint=f"unix:{sockets}/wire")
