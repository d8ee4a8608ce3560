"""`synapse profile` on real Tritons: what is known of a worker beforehand is what it finds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.profiles import SqliteProfileStore
from synapse.domain.profile import Profile
from synapse_server.cli import main

VENV = os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker")

DELAY_MS = 120
"""Of an item: beside less, a busy machine makes two at a time seem as good as four."""

POOLS = f"""
[[pool]]
name = "quick"
models = ["echo"]
price_per_hour_usd = 3.6
[pool.model_parameters.echo]
delay_ms = "{DELAY_MS}"
slots = "4"

[[pool]]
name = "never"
models = ["echo"]
min_workers = 0
"""


def profile(folder: Path, *arguments: str) -> int:
    pools = folder / "pools.toml"
    pools.write_text(POOLS)
    places = ["--data-dir", str(folder / "data"), "--worker-venv", VENV]
    if "--models" not in arguments:
        places += ["--pools", str(pools)]
    return main(["profile", *places, *arguments])


def kept(folder: Path) -> Sequence[Profile]:
    return kept_in(folder / "data")


def kept_in(data: Path) -> Sequence[Profile]:
    async def read() -> Sequence[Profile]:
        database = Database.open(data / "jobs.db")
        try:
            return await (await SqliteProfileStore.open(database)).profiles()
        finally:
            await database.close()

    return asyncio.run(read())


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one of the pools has been profiled."""
    folder = tmp_path_factory.mktemp("profiled")
    assert profile(folder, "--pool", "quick", "--budget-s", "12") == 0
    return folder


def test_the_time_and_the_slots_of_a_worker_are_found(profiled: Path) -> None:
    [found] = kept(profiled)

    assert (found.model, found.version, found.pool) == ("echo", "1", "quick")
    # A busy machine makes all this worse without bound, and nothing makes it better.
    assert found.p50_ms(64, 0, 1) >= DELAY_MS * 0.9
    assert found.best_batch >= 4, "its slots are found"
    assert found.p50_ms(64, 0, 16) > 2 * DELAY_MS
    assert found.usd_per_1k_items == pytest.approx(1.0 / found.items_per_s)
    assert found.was_idle


def test_what_has_a_profile_is_not_measured_again(
    profiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept(profiled)

    assert profile(profiled, "--pool", "quick") == 0

    said = capsys.readouterr()
    assert said.err == ""
    header, row = said.out.splitlines()
    assert header.startswith("model")
    assert row.split()[:2] == ["echo:1", "quick"]
    assert kept(profiled) == before


def test_by_force_it_is_measured_again(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [before] = kept(profiled)

    assert profile(profiled, "--pool", "quick", "--force", "--budget-s", "0.5") == 0

    [again] = kept(profiled)
    assert again.measured_at > before.measured_at
    assert "echo on quick: 1 in flight, 64 + 0 tokens" in capsys.readouterr().err


def test_what_is_not_served_is_told(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(profiled, "--pool", "cellar") == 1
    assert "nothing is served of pool 'cellar'" in capsys.readouterr().err


SEVERAL = """
[[pool]]
name = "own"
models = ["echo", "all-minilm-l6-v2"]
[pool.slots]
echo = 4
all-minilm-l6-v2 = 4

[[pool]]
name = "elsewhere"
engine_url = "127.0.0.1:1"
models = ["echo", "all-minilm-l6-v2"]
[pool.slots]
all-minilm-l6-v2 = 4
"""


def test_one_model_is_measured_of_pools_that_say_something_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = tmp_path / "several.toml"
    pools.write_text(SEVERAL)
    only = ["--pools", str(pools), "--model", "echo", "--budget-s", "0.5"]

    assert main(["profile", "--data-dir", str(tmp_path), "--worker-venv", VENV, *only]) == 1

    assert [(each.model, each.pool) for each in kept_in(tmp_path)] == [("echo", "own")]
    assert "echo on elsewhere: " in capsys.readouterr().out


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_a_budget_is_a_time(
    tmp_path: Path, budget: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(tmp_path, f"--budget-s={budget}") == 1
    assert "--budget-s: must be more than 0 seconds" in capsys.readouterr().err


def test_a_model_is_measured_by_its_tokens(tmp_path: Path) -> None:
    assert profile(tmp_path, "--models", "all-minilm-l6-v2", "--budget-s", "4") == 0

    [found] = kept(tmp_path)
    assert (found.model, found.pool) == ("all-minilm-l6-v2", "local")
    # No figures: whoever else is busy on this machine slows it down. But the order is sure.
    assert found.samples >= 6
    assert found.prompt_token_ms > 0
    assert found.alone_ms(256, 0) > found.alone_ms(8, 0) > 0
    assert found.items_per_s > 0
    assert found.spread >= 1
    assert found.first_company is None
