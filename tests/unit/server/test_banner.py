"""What the server prints once it serves."""

from __future__ import annotations

from synapse.domain.pool import Pool
from synapse_server.banner import ready_text
from tests.factories import a_model

URL = "http://127.0.0.1:8080"


def test_a_single_pool_is_nothing_to_talk_about() -> None:
    text = ready_text(URL, [a_model("echo")], [Pool("local", "cpu")])

    assert "Synapse serves echo\n  API    http://127.0.0.1:8080\n" in text
    assert "pool" not in text


def test_several_pools_are_told_with_their_size_and_price() -> None:
    pools = [
        Pool("steady", "cpu"),
        Pool("burst", "gpu", price_per_hour_usd=1.25, min_workers=0, max_workers=3),
        Pool("elsewhere", "gpu", endpoint="box:8001"),
    ]

    text = ready_text(URL, [a_model("echo")], pools)

    assert "\n  pool   steady: cpu, 1 worker\n" in text
    assert "\n  pool   burst: gpu, 0 to 3 workers, $1.25/h each\n" in text
    assert "\n  pool   elsewhere: gpu, the engine at box:8001\n" in text
