"""What an option cannot be is refused in a line that says what it can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synapse_server.cli import main
from synapse_worker.__main__ import parse


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "--port", "99999"), "'99999': must be a port, from 0 to 65535"),
        (("serve", "--port=-1"), "'-1': must be a port"),
        (("serve", "--port", "http"), "'http': must be a port"),
        (("serve", "--log-level", "loud"), "must be one of debug, info, warning, error"),
        (("profile", "--log-level", ""), "must be one of debug, info, warning, error"),
        (("serve", "--max-queued=-5"), "-5: must be at least 1"),
        (("serve", "--max-queued", "many"), "'many': must be a whole number"),
        (("serve", "--data-dir", ""), "--data-dir: must name a folder"),
        (("profile", "--data-dir", " "), "--data-dir: must name a folder"),
        (("keys", "list", "--data-dir", ""), "--data-dir: must name a folder"),
        (("users", "list", "--data-dir", ""), "--data-dir: must name a folder"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(
    arguments: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["serve", "keys", "users"])
def test_so_is_one_of_the_environment(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNAPSE_DATA_DIR", "")

    with pytest.raises(SystemExit):
        main([command] if command == "serve" else [command, "list"])

    assert "--data-dir: must name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "profile"])
def test_the_help_names_the_variable_of_each_option_that_has_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])

    shown = " ".join(capsys.readouterr().out.split())
    named = dict(re.findall(r"--([\w-]+) (?:(?! --).)*?\[(SYNAPSE_\w+)\]", shown))
    assert named["pools"] == "SYNAPSE_POOLS_FILE"
    assert named["worker-venv"] == "SYNAPSE_WORKER_VENV"
    assert not {"budget-s", "force", "model", "pool"} & set(named)
    assert "Every option" not in shown


@pytest.mark.parametrize("port", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_worker_has_no_port_that_there_is_not(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--models", "echo", port, "99999"])

    assert ended.value.code == 2
    assert f"{port}: '99999': must be a port" in capsys.readouterr().err
