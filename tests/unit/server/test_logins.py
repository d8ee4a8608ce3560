"""Logins that load what they need when the first one comes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse.adapters.local.failures import StorageError
from synapse.domain.errors import Unauthenticated, Unavailable
from synapse_server.config import FleetConfig, ServerConfig
from synapse_server.logins import SIGNING_KEY, Logins

UNSIGNED = "e30.e30.e30"


def logins(data_dir: Path) -> Logins:
    records: Any = SimpleNamespace(access=None)
    fleet = FleetConfig(pools=())
    config = ServerConfig("127.0.0.1", 8080, data_dir, ("echo",), data_dir, fleet)
    return Logins(records, config)


async def test_a_signing_key_is_made_when_the_first_token_comes(tmp_path: Path) -> None:
    made = logins(tmp_path)
    assert not (tmp_path / SIGNING_KEY).exists()

    with pytest.raises(Unauthenticated):
        await made.verify(UNSIGNED)

    assert (tmp_path / SIGNING_KEY).stat().st_mode & 0o077 == 0
    await made.close()


def test_a_signing_key_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / SIGNING_KEY).write_text("no key")
    (tmp_path / SIGNING_KEY).chmod(0o600)

    with pytest.raises(StorageError, match="it is no key: delete it"):
        logins(tmp_path)


async def test_a_signing_key_that_cannot_be_made_is_no_fault_of_who_logs_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = logins(tmp_path / "nowhere")

    for _ in range(2):
        with pytest.raises(Unavailable) as refusal:
            await made.sign_in("ada", "a password")
        assert "nowhere" in caplog.text
        assert "nowhere" not in refusal.value.message

    (tmp_path / "nowhere").mkdir()
    with pytest.raises(Unauthenticated):
        await made.verify(UNSIGNED)
    await made.close()
