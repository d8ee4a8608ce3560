"""Servers for the tests: one that all may use, and ones to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.one_machine.running import WORKER_VENV, Server
from tests.patience import PATIENCE_S

LLM = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the language model and echo; not to be broken."""
    server = Server(tmp_path_factory.mktemp("llm") / "data", f"{LLM},echo")
    server.start()
    yield server
    server.close()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers (not started) that are gone after the test."""
    made: list[Server] = []

    def make(models: str = "echo", *more: str) -> Server:
        server = Server(tmp_path / f"data-{len(made)}", models, *more)
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """An HTTP client with room for many connections."""
    limits = httpx.Limits(max_connections=200)
    with httpx.Client(timeout=PATIENCE_S, limits=limits) as client:
        yield client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (WORKER_VENV / "bin/python").exists():
        for item in items:
            if "one_machine" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=f"{WORKER_VENV} is missing: make setup"))
