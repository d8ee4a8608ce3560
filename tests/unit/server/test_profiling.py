"""Which workers `synapse profile` starts, and with what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from synapse_server import local_fleet
from synapse_server.config import ServerConfig
from synapse_server.local_worker import WorkerSetup
from synapse_server.pools_file import one_pool, read_pools
from synapse_server.profiling import Wish, profile
from synapse_worker.errors import WorkerError

MODELS = ("all-minilm-l6-v2", "echo")


class MuteWorker:
    """One that starts at once, and answers nobody."""

    started: Sequence[tuple[str, ...]] = ()

    def __init__(self, setup: WorkerSetup, *_: object) -> None:
        self.id, self.detail, self.is_busy = setup.id, "", False
        self._models = setup.models

    async def start(self) -> None:
        MuteWorker.started = [*MuteWorker.started, self._models]

    async def wait_failed(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing is left of it."""


class OneThatFails(MuteWorker):
    """One that cannot load echo."""

    async def start(self) -> None:
        await super().start()
        if "echo" in self._models:
            raise WorkerError("Triton could not load echo: it is broken")


async def test_a_model_that_does_not_load_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_fleet, "LocalWorker", OneThatFails)
    monkeypatch.setattr(MuteWorker, "started", ())
    config = ServerConfig("127.0.0.1", 0, tmp_path, MODELS, tmp_path, one_pool())

    minilm, echo = await profile(config, Wish(budget_s=0.1), lambda _: None)

    assert MuteWorker.started == [MODELS, ("all-minilm-l6-v2",), ("echo",)]
    assert (echo.profile, echo.problem) == (None, "Triton could not load echo: it is broken")
    assert "echo" not in minilm.problem


@pytest.mark.parametrize(
    ("more", "started"),
    [
        ("", [MODELS]),
        ("memory_budget_mb = 400", [("all-minilm-l6-v2",), ("echo",)]),
        ('models_at_start = ["echo"]', [("all-minilm-l6-v2",), ("echo",)]),
    ],
)
async def test_models_that_may_not_fit_together_are_measured_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, started: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(local_fleet, "LocalWorker", MuteWorker)
    monkeypatch.setattr(MuteWorker, "started", ())
    file = tmp_path / "pools.toml"
    file.write_text(f'[[pool]]\nname = "small"\n{more}\n', encoding="utf-8")
    config = ServerConfig("127.0.0.1", 0, tmp_path, MODELS, tmp_path, read_pools(file))

    reports = await profile(config, Wish(budget_s=0.1), lambda _: None)

    assert [report.target.spec.name for report in reports] == list(MODELS)
    assert MuteWorker.started == started
