"""OpenAI's own SDK, pointed at a running Synapse by its base URL and key alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.one_machine.running import WORKER_VENV, Server
from tests.e2e.openai_sdk.target import EMBEDDER, LLM, Target
from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S

DEPLOYED_UPLOAD_BYTES = 4_000_000
"""What fits into the event that a function is given."""


@pytest.fixture(scope="package")
def sdk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole suite; not to be broken."""
    if not (WORKER_VENV / "bin/python").exists():
        pytest.skip(f"{WORKER_VENV} is missing: make setup")
    server = Server(tmp_path_factory.mktemp("sdk") / "data", f"{LLM},{EMBEDDER}", auth="on")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="package")
def sdk_key(sdk_server: Server) -> str:
    """A key of that server for what OpenAI's clients do, and for nothing else."""
    return sdk_server.new_key()


@pytest.fixture(scope="package", params=["one machine", "deployed"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each test of the suite runs against each of these."""
    if request.param == "deployed":
        stack: Stack = request.getfixturevalue("stack")
        return Target(
            f"{stack.url}/v1",
            stack.api_key,
            can_stream=False,
            max_upload_bytes=DEPLOYED_UPLOAD_BYTES,
        )
    server: Server = request.getfixturevalue("sdk_server")
    return Target(f"{server.url}/v1", request.getfixturevalue("sdk_key"))


@pytest.fixture
def client(target: Target) -> Iterator[OpenAI]:
    """The SDK as a user makes it; without retries, so that a failure is seen."""
    with OpenAI(
        base_url=target.base_url, api_key=target.api_key, max_retries=0, timeout=PATIENCE_S
    ) as client:
        yield client


@pytest.fixture
async def async_client(target: Target) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=target.base_url, api_key=target.api_key, max_retries=0, timeout=PATIENCE_S
    ) as client:
        yield client


@pytest.fixture
def streams(target: Target) -> None:
    """For tests of what only a front door that streams can show."""
    if not target.can_stream:
        pytest.skip("this front door sends a stream in one piece")
