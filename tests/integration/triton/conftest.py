"""A real Triton with the real models, and the engine that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from synapse.adapters.catalogue import load_catalogue
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.e2e.worker import Worker, worker
from tests.factories import a_pool


@pytest.fixture(scope="package")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("triton")) as found:
        yield found


@pytest.fixture
def pool(triton: Worker) -> Pool:
    return a_pool(endpoint=triton.grpc_address)


@pytest.fixture
async def engine() -> AsyncIterator[TritonEngine]:
    async with TritonEngine() as made:
        yield made


@pytest.fixture(scope="session")
def catalogue() -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in load_catalogue()}


@pytest.fixture
def llm(catalogue: dict[str, ModelSpec]) -> ModelSpec:
    return catalogue["smollm2-135m-instruct"]


@pytest.fixture
def echo(catalogue: dict[str, ModelSpec]) -> ModelSpec:
    return catalogue["echo"]
