"""`--auth off` is for who only their own machine can reach."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from synapse.domain.access import ANYONE
from synapse.domain.errors import Forbidden
from synapse.domain.pool import Pool
from synapse_server.cli import main
from synapse_server.config import FleetConfig, LocalPool, ServerConfig, StartError
from synapse_server.loopback import is_loopback, whoever_is_here
from synapse_server.serve import serve

OPEN_HOUSES = ["0.0.0.0", "", "::", "10.0.0.7", "192.168.1.2", "example.com", "127.0.0.1.nip.io"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_reaches_its_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", OPEN_HOUSES)
def test_where_others_reach_the_server_it_does_not_start_without_keys(
    host: str, tmp_path: Path
) -> None:
    pools = FleetConfig((LocalPool(Pool("local", "cpu")),))
    config = ServerConfig(host, 8080, tmp_path / "data", ("echo",), tmp_path, pools, auth=False)

    with pytest.raises(StartError, match=r"SYNAPSE_AUTH=off .*--host 127\.0\.0\.1"):
        asyncio.run(serve(config))

    assert not config.data_dir.exists()


@pytest.mark.parametrize("value", ["", "no", "OFF", "false", "0"])
def test_the_switch_is_on_or_off_and_nothing_else(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SYNAPSE_AUTH", value)

    with pytest.raises(SystemExit) as ended:
        main(["serve"])

    assert ended.value.code == 2
    assert f"must be on or off, not {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:8080"},
        {"host": "[::1]:8080"},
        {"host": "localhost"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"},
        {"host": "127.0.0.1:8080", "origin": "http://localhost:3000"},
        {"host": "127.0.0.1:8080", "origin": "https://allowed.example"},
    ],
)
async def test_programs_and_pages_of_this_machine_are_let_in(headers: dict[str, str]) -> None:
    identify = whoever_is_here(("https://allowed.example",))

    assert await identify({"headers": headers}) == ANYONE


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example:8080"},
        {"host": "127.0.0.1.rebound.example"},
        {"host": "localhost@rebound.example"},
        {"host": "[::1"},
        {"host": "127.0.0.1:8080", "origin": "https://elsewhere.example"},
        {"host": "127.0.0.1:8080", "origin": "null"},
        {"host": "rebound.example", "origin": "http://rebound.example"},
    ],
)
async def test_pages_from_elsewhere_are_refused_though_a_browser_here_asks(
    headers: dict[str, str],
) -> None:
    with pytest.raises(Forbidden, match="only this machine is served") as refused:
        await whoever_is_here(("https://allowed.example", "*"))({"headers": headers})

    assert refused.value.code == "not_from_here"
