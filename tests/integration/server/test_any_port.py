"""`synapse serve --port 0`: whoever reads what it prints has to find it."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_server.config import ServerConfig, StartError
from synapse_server.pools_file import one_pool
from synapse_server.serve import serve


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


def test_an_address_in_brackets_is_told_of(tmp_path: Path) -> None:
    config = ServerConfig("[::1]", 0, tmp_path, ("echo",), tmp_path, one_pool())

    with pytest.raises(StartError, match="; write --host without brackets"):
        asyncio.run(serve(config))


def test_a_port_that_only_root_may_have_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("synapse_server.serve.socket.socket", Refusing)
    config = ServerConfig("127.0.0.1", 80, tmp_path, ("echo",), tmp_path, one_pool())

    with pytest.raises(
        StartError, match=r"127\.0\.0\.1:80: Permission denied; choose a --port from"
    ):
        asyncio.run(serve(config))


def test_where_any_port_will_do_the_one_that_was_bound_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def ground(config: ServerConfig) -> None:
        told.append(config.port)
        raise StartError("enough")

    monkeypatch.setattr("synapse_server.serve.Ground", ground)
    config = ServerConfig("127.0.0.1", 0, tmp_path, ("echo",), tmp_path, one_pool())

    with pytest.raises(StartError, match="enough"):
        asyncio.run(serve(config))

    assert told[0] > 0
