"""What the environment of a worker's container says."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_container import settings as module
from synapse_container.settings import PORTS, ContainerSettings, SettingsError

GIVEN = {
    "SYNAPSE_POOL": "gpu-ecs",
    "SYNAPSE_ACCELERATOR": "gpu",
    "SYNAPSE_MODELS": "one,two",
    "SYNAPSE_REGISTRY_TABLE": "registry",
    "SYNAPSE_ADDRESS": "10.0.0.7",
}


def test_a_worker_that_is_alone_is_reached_at_its_address() -> None:
    settings = ContainerSettings.load(GIVEN)
    config = settings.agent_config()

    assert (config.worker.host, config.endpoint_host) == ("10.0.0.7", "10.0.0.7")
    assert config.worker.grpc_port == PORTS[1]
    assert config.worker.models == ("one", "two")
    assert config.worker.venv is None
    assert settings.registry_table == "registry"
    assert settings.pool_of().models == {"one", "two"}


def test_without_an_address_it_listens_everywhere_and_names_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "own_address", lambda: "10.83.0.9")
    settings = ContainerSettings.load({**GIVEN, "SYNAPSE_ADDRESS": ""})

    config = settings.agent_config()

    assert config.worker.host == "0.0.0.0"
    assert config.endpoint_host == "10.83.0.9"


def test_an_engine_behind_a_runner_is_nobody_elses() -> None:
    settings = ContainerSettings.load(GIVEN, is_alone=False)
    config = settings.agent_config()

    assert (config.worker.host, config.endpoint_host) == ("127.0.0.1", "")
    assert settings.registry_table == ""


def test_an_environment_that_lives_on_beats_for_the_autoscaler() -> None:
    settings = ContainerSettings.load({**GIVEN, "SYNAPSE_HEARTBEATS": "true"}, is_alone=False)

    assert settings.registry_table == "registry"


def test_models_that_are_not_in_the_image_come_from_the_source() -> None:
    given = {**GIVEN, "SYNAPSE_MODEL_SOURCE": "s3://bucket/models", "SYNAPSE_STATE_DIR": "/tmp/s"}
    cache = ContainerSettings.load(given).agent_config().cache

    assert cache is not None
    assert (cache.source, cache.folder) == ("s3://bucket/models", Path("/tmp/s/cache"))


@pytest.mark.parametrize(
    "key", ["SYNAPSE_POOL", "SYNAPSE_ACCELERATOR", "SYNAPSE_MODELS", "SYNAPSE_REGISTRY_TABLE"]
)
def test_what_is_missing_is_named(key: str) -> None:
    with pytest.raises(SettingsError, match=key):
        ContainerSettings.load({k: v for k, v in GIVEN.items() if k != key})


@pytest.mark.parametrize("ports", ["8000", "a,b,c,d", "1,2,3"])
def test_ports_are_four_numbers(ports: str) -> None:
    with pytest.raises(SettingsError, match="SYNAPSE_PORTS"):
        ContainerSettings.load({**GIVEN, "SYNAPSE_PORTS": ports})
