"""Users are managed from a terminal: passwords are typed or piped in, never arguments."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_server.cli import main

PASSWORD = "correct horse battery"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    answers = iter(lines)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_password_is_typed_twice(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, PASSWORD, PASSWORD)

    assert main(["users", "add", "ada", "--data-dir", folder, "--scopes", "usage,admin"]) == 0

    shown = capsys.readouterr()
    assert "user ada of tenant default: scopes admin,usage" in shown.err
    assert PASSWORD not in shown.out + shown.err


def test_a_slip_of_the_finger_makes_no_user(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, PASSWORD, PASSWORD + "x")

    assert main(["users", "add", "ada", "--data-dir", folder]) == 1

    assert "not the same" in capsys.readouterr().err
    assert not list(Path(folder).iterdir())


def test_a_password_is_piped_in_without_its_line_s_end(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, f"{PASSWORD}\r\nmore\n")
    assert main(["users", "add", "ada", "--data-dir", folder, "--models", "echo"]) == 0

    assert f"made a new data folder {folder}; " in capsys.readouterr().err

    assert main(["users", "list", "--data-dir", folder]) == 0

    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STATUS", "CREATED", "TENANT", "MAY"]
    assert row.split()[:2] == ["ada", "active"]
    assert "models echo" in row


def test_a_model_that_is_not_served_makes_no_user(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, PASSWORD)
    assert main(["users", "add", "ada", "--data-dir", folder, "--models", "gpt-9"]) == 1
    told = capsys.readouterr().err
    assert "'gpt-9' not served here; choose from:" in told
    assert told.endswith("; a catalogue of your own: --models-dir\n")
    assert main(["users", "list", "--data-dir", folder]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("lines", [(), (PASSWORD,)])
@pytest.mark.parametrize(
    ("pressed", "code", "told"),
    [(EOFError, 1, "synapse: no password: "), (KeyboardInterrupt, 130, "")],
    ids=["Ctrl-D", "Ctrl-C"],
)
def test_who_types_no_password_makes_nobody(
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    lines: tuple[str, ...],
    pressed: type[BaseException],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = iter(lines)

    def asked(prompt: str) -> str:
        with pytest.raises(RuntimeError):  # in a loop, Ctrl-C would have to wait for the line
            asyncio.get_running_loop()
        for answer in answers:
            return answer
        raise pressed

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", asked)

    assert main(["users", "add", "ada", "--data-dir", folder]) == code

    assert told in capsys.readouterr().err
    assert not list(Path(folder).iterdir())


def test_without_a_password_nobody_is_made(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, "")

    assert main(["users", "add", "ada", "--data-dir", folder]) == 1
    assert "no password" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["passwd", "disable", "enable", "list"])
def test_a_folder_without_a_server_is_told_of(
    monkeypatch: pytest.MonkeyPatch, folder: str, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, PASSWORD)
    name = [] if action == "list" else ["ada"]

    assert main(["users", action, *name, "--data-dir", f"{folder}/elsewhere"]) == 1

    assert "--data-dir" in capsys.readouterr().err
    assert not Path(folder, "elsewhere").exists()


def test_a_user_who_is_not_there_is_told_of(
    monkeypatch: pytest.MonkeyPatch, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, PASSWORD)
    main(["users", "add", "ada", "--data-dir", folder])

    assert main(["users", "disable", "bob", "--data-dir", folder]) == 1
    assert "no user 'bob'" in capsys.readouterr().err


def test_there_is_no_option_for_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["users", "add", "--help"])

    assert "--password" not in capsys.readouterr().out
