"""What a start begins with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import synapse
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.errors import Unavailable
from synapse_server.config import ServerConfig, StartError
from synapse_server.ground import JOBS, Ground
from synapse_server.node import Node
from synapse_server.pools_file import one_pool, read_pools

CATALOGUE = Path(synapse.__file__).parent / "catalogue"


def config_of(tmp_path: Path, model: str = "echo") -> ServerConfig:
    """A server whose worker cannot start: there is no environment for it."""
    return ServerConfig(
        host="127.0.0.1",
        port=0,
        data_dir=tmp_path / "data",
        models=(model,),
        worker_venv=tmp_path / "nowhere",
        fleet=one_pool(None),
    )


def own_model(
    tmp_path: Path, of_triton: str = "", version: str = "1", folders: Sequence[str] = ("1",)
) -> tuple[Path, ServerConfig]:
    """The folder of the operator's own model `mine`, and a server of it; nothing else is in it."""
    model = tmp_path / "models" / "mine"
    for name in folders:
        (model / name).mkdir(parents=True)
    (model / "config.pbtxt").write_text(f'name: "mine"\n{of_triton}')
    entry = json.loads((CATALOGUE / "echo" / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**entry, "name": "mine", "version": version}))
    return model, replace(config_of(tmp_path, "mine"), models_dir=tmp_path / "models")


async def test_a_worker_that_cannot_start_is_told_to_who_waits_for_it(tmp_path: Path) -> None:
    async with Ground(config_of(tmp_path)) as ground:
        with pytest.raises(StartError, match="nowhere does not exist"):
            await ground.workers_up()


async def test_who_does_not_wait_for_the_workers_leaves_nothing_behind(tmp_path: Path) -> None:
    config = config_of(tmp_path)

    async with Ground(config):
        pass

    await Database.open(config.data_dir / JOBS).close()


async def test_a_folder_that_another_has_is_refused_and_no_worker_started(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    database = Database.open(config.data_dir / JOBS)
    try:
        with pytest.raises(StartError, match="in use by process"):
            async with Ground(config):
                pass
    finally:
        await database.close()

    assert not (config.data_dir / "worker").exists()


async def test_records_that_cannot_be_read_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def recover(*_: object) -> None:
        raise Unavailable("storage: jobs.db: it is damaged")

    monkeypatch.setattr(SqliteJobStore, "recover", recover)
    async with Ground(config_of(tmp_path)) as ground:
        with pytest.raises(StartError, match=r"jobs\.db: it is damaged"):
            async with Node(ground):
                pass


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pool.slots]\nnope = 3", "pool 'a': slots: 'nope' is not served here"),
        ("[pool.model_parameters.nope]", "pool 'a': model_parameters: 'nope' is not served here"),
        ('models_at_start = ["nope"]', "pool 'a': models_at_start: 'nope' is not served here"),
        ('[[pool.warm]]\nmodel = "nope"', "pool 'a': warm: 'nope' is not served here"),
    ],
    ids=["slots", "model_parameters", "models_at_start", "warm"],
)
def test_a_pool_says_nothing_of_models_that_are_not_served(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(f'[[pool]]\nname = "a"\n{text}\n')

    with pytest.raises(StartError, match=told):
        Ground(replace(config_of(tmp_path), fleet=read_pools(file)))


def test_a_model_that_nobody_knows_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="'unknown' is not in the catalogue"):
        Ground(config_of(tmp_path, "unknown"))

    assert not (tmp_path / "data").exists()


def test_a_folder_of_a_model_that_says_nothing_of_it_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    config = replace(config_of(tmp_path, "mine"), models_dir=tmp_path / "models")

    with pytest.raises(StartError, match=r"'mine': folder .*/models/mine has no model\.json"):
        Ground(config)
    with pytest.raises(StartError, match="'yours' is not in the catalogue"):
        Ground(replace(config, models=("yours",)))


@pytest.mark.parametrize(
    ("version", "folders", "policy", "is_taken"),
    [
        ("1", ["1"], "", True),
        ("2", ["1", "2"], "", True),
        ("2", ["1"], "", False),
        ("1", ["1", "2"], "", False),
        ("v1", ["1"], "", False),
        ("1", ["1", "2"], "version_policy: { all { } }", True),
        ("3", ["1", "2"], "version_policy: { all { } }", False),
    ],
)
def test_a_version_that_no_engine_would_take_is_told_at_the_start(
    tmp_path: Path, version: str, folders: list[str], policy: str, is_taken: bool
) -> None:
    """Its jobs would wait for it until their deadlines."""
    _, config = own_model(tmp_path, policy, version, folders)

    if is_taken:
        Ground(config)
    else:
        with pytest.raises(StartError, match=rf"says version '{version}', but Triton takes '\d'"):
            Ground(config)
        # Of an engine that runs elsewhere nobody here knows what it has.
        Ground(replace(config, fleet=one_pool("gpu-box:8001")))


def test_a_backend_in_python_without_its_code_is_told_at_the_start(tmp_path: Path) -> None:
    """Triton says so in its log, and is waited for in vain."""
    model, config = own_model(tmp_path, 'backend: "python"\n')

    with pytest.raises(StartError, match=r"'mine': there is no .*/mine/1/model\.py"):
        Ground(config)
    (model / "1" / "model.py").touch()
    Ground(config)


def test_a_chat_template_that_is_none_is_told_at_the_start_with_its_line(tmp_path: Path) -> None:
    model, config = own_model(tmp_path)

    (model / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content }\n")
    with pytest.raises(StartError, match=r"mine/chat_template\.jinja: line 2: "):
        Ground(config)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    Ground(config)
