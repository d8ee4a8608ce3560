"""What the server prints once it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synapse.domain.pool import Pool
from synapse_server.banner import ready_text
from synapse_server.config import FleetConfig, LocalPool, ServerConfig
from tests.factories import a_model

URL = "http://127.0.0.1:8080"
PROGRAM = ".venv/bin/synapse"
KEY = "sk-syn-key000000001secret"


def a_config(*pools: Pool, **changes: Any) -> ServerConfig:
    fleet = FleetConfig(tuple(LocalPool(pool) for pool in pools or [Pool("local", "cpu")]))
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 8080,
        "data_dir": Path(".synapse"),
    } | changes
    return ServerConfig(models=("echo",), worker_venv=Path(".venv-worker"), fleet=fleet, **given)


def test_a_single_pool_is_nothing_to_talk_about() -> None:
    text = ready_text(a_config(), [a_model("echo")], PROGRAM)

    assert "Synapse serves echo\n  API    http://127.0.0.1:8080\n" in text
    assert "pool" not in text


def test_several_pools_are_told_with_their_size_and_price() -> None:
    pools = [
        Pool("steady", "cpu"),
        Pool("burst", "gpu", price_per_hour_usd=1.25, min_workers=0, max_workers=3),
        Pool("elsewhere", "gpu", endpoint="box:8001"),
    ]

    text = ready_text(a_config(*pools), [a_model("echo")], PROGRAM)

    assert "\n  pool   steady: cpu, 1 worker\n" in text
    assert "\n  pool   burst: gpu, 0 to 3 workers, $1.25/h each\n" in text
    assert "\n  pool   elsewhere: gpu, the engine at box:8001\n" in text


def test_the_first_key_is_shown_and_set_by_what_is_pasted() -> None:
    text = ready_text(a_config(), [a_model("echo")], PROGRAM, KEY)

    assert f"\n  key    {KEY}\n" in text
    assert f"\nTry it:\n\n  export OPENAI_API_KEY={KEY}\n  job=$(curl" in text
    assert text.count('-H "Authorization: Bearer $OPENAI_API_KEY"') == 2


def test_later_starts_tell_how_to_make_a_key_of_their_folder() -> None:
    plain = ready_text(a_config(), [a_model("echo")], PROGRAM)
    elsewhere = ready_text(a_config(data_dir=Path("/var/my data")), [a_model("echo")], PROGRAM)

    assert "export OPENAI_API_KEY=$(.venv/bin/synapse keys create NAME)\n" in plain
    assert "(for everything: --scopes admin,batches,inference,usage):\n" in plain
    assert "$(.venv/bin/synapse keys create NAME --data-dir '/var/my data')\n" in elsewhere
    assert "sk-syn-" not in plain


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert "  API    http://[::1]:8080\n" in ready_text(a_config(host="::1"), [a_model()], PROGRAM)


def test_where_nobody_is_asked_nothing_is_sent() -> None:
    text = ready_text(a_config(auth=False), [a_model("echo")], PROGRAM)

    assert "SYNAPSE_AUTH=off" in text
    assert "Bearer" not in text
    assert "keys create" not in text
