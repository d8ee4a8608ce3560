"""Environments: made once, made anew when half made or outdated, and plain about failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import setup_environments
from setup_environments import SPECS, without_included
from setup_python import Python, SetupError
from setup_venv import STAMP, Running, Venv, explain

PYTHON = Python("/usr/bin/python3", (3, 11, 7), "cpython", True, 23)
# A stand-in for an interpreter: makes an environment's folder, and notes what is asked of pip.
FAKE_PYTHON = """#!/bin/sh
set -e
case "$*" in
*"-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    echo venv >> "$(dirname "$folder")/calls" ;;
*importlib.metadata*) echo pip; echo Synapse; cat installed ;;
*) echo "pip $*" >> calls
   if [ -e fail ]; then cat fail; exit 1; fi ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with two locks, one of which includes the other."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/app.txt").write_text("one==1\n")
    (tmp_path / "requirements/dev.txt").write_text("one==1\ntwo==2\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "installed").write_text("one\ntwo\n")
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return tmp_path


def venv(root: Path, name: str) -> Venv:
    return Venv(SPECS[name], root, Running())


def make(root: Path, name: str) -> list[str]:
    """Makes an environment; what was done to make it."""
    (root / "calls").write_text("")
    venv(root, name).make(Python(str(root / "python"), (3, 11, 7), "cpython", True, 23), print)
    return [kind_of(call) for call in (root / "calls").read_text().splitlines()]


def kind_of(call: str) -> str:
    if " uninstall " in call:
        return "remove " + call.split("--yes ")[1]
    return "venv" if call == "venv" else "project" if call.endswith("-e .") else "packages"


def test_a_new_environment_gets_its_packages_and_the_project_and_then_is_fresh(root: Path) -> None:
    assert not venv(root, "app").is_fresh(None)

    assert make(root, "app") == ["venv", "packages", "project"]

    assert venv(root, "app").is_fresh(None)


def test_the_development_tools_are_added_to_the_servers_environment_and_serve_it(
    root: Path,
) -> None:
    make(root, "app")

    assert make(root, "dev") == ["packages", "project"]

    assert venv(root, "dev").is_fresh(None)
    assert venv(root, "app").is_fresh(None)


def test_a_changed_lock_is_installed_over_the_old_and_what_it_dropped_goes(root: Path) -> None:
    make(root, "app")
    (root / "requirements/app.txt").write_text("one==2\nthe-other==1 \\\n    --hash=sha256:0\n")
    (root / "installed").write_text("one\nThe_Other\ngone\n")

    assert not venv(root, "app").is_fresh(None)
    assert make(root, "app") == ["packages", "remove gone", "project"]
    assert venv(root, "app").is_fresh(None)


def test_the_servers_changed_lock_leaves_the_development_tools_for_their_own_turn(
    root: Path,
) -> None:
    make(root, "dev")
    (root / "requirements/app.txt").write_text("one==2\n")
    (root / "requirements/dev.txt").write_text("one==2\ntwo==2\n")

    assert make(root, "app") == ["packages", "project"]

    assert venv(root, "app").is_fresh(None)
    assert not venv(root, "dev").is_fresh(None)


def test_a_changed_project_is_installed_again_and_nothing_else(root: Path) -> None:
    make(root, "app")
    (root / "pyproject.toml").write_text("[project]\nname = 'other'\n")

    assert not venv(root, "app").is_fresh(None)
    assert make(root, "app") == ["project"]


def test_an_interrupted_set_up_leaves_no_stamp_and_is_made_anew(root: Path) -> None:
    make(root, "app")
    (root / "fail").write_text("Killed\n")
    with pytest.raises(SetupError):
        make(root, "dev")
    (root / "fail").unlink()

    assert not venv(root, "app").is_fresh(None)
    assert make(root, "dev") == ["venv", "packages", "project"]


@pytest.mark.parametrize(
    "damage",
    [{"root": "/moved/from/here"}, {"executable": "/usr/bin/python3.10"}, {"locks": {}}],
)
def test_an_environment_that_was_moved_or_lost_its_python_is_not_fresh(
    root: Path, damage: dict[str, object]
) -> None:
    make(root, "app")
    stamp = root / ".venv" / STAMP
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), **damage}))

    assert not venv(root, "app").is_fresh(None)


@pytest.mark.parametrize("stamp", ["", "[]", "{", "{}", "null"])
def test_a_damaged_stamp_counts_as_none(root: Path, stamp: str) -> None:
    make(root, "app")
    (root / ".venv" / STAMP).write_text(stamp)

    assert not venv(root, "app").is_fresh(None)


def test_another_chosen_python_makes_the_environment_anew(root: Path) -> None:
    make(root, "app")

    other = Python("/usr/bin/python3.12", (3, 12, 1), "cpython", True, 23)
    assert venv(root, "app").is_fresh(PYTHON)
    assert not venv(root, "app").is_fresh(other)


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full", "free some space"),
        (
            "WARNING: Retrying after NewConnectionError('<pip>: Failed to establish')\n"
            "ERROR: No matching distribution found for wrapt==2.5.2",
            "the package index cannot be reached",
            "check the network",
        ),
        (
            "ERROR: No matching distribution found for nvidia-pytriton==0.7.0",
            "there is no ready-made package of nvidia-pytriton==0.7.0 for this machine",
            "glibc",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "a downloaded package is not the one that was locked",
            "mirror or proxy",
        ),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY", "is not trusted", "PIP_CERT"),
        ("working\nERROR: something new\nbye", "it failed: ERROR: something new", "see above"),
        ("", "it failed: no message", "see above"),
    ],
)
def test_a_failure_is_told_as_one_line_of_cause_and_one_of_remedy(
    said: str, cause: str, remedy: str
) -> None:
    error = explain(said.splitlines(), "it failed", None)

    assert cause in error.cause
    assert remedy in error.remedy
    assert "\n" not in error.cause + error.remedy


def test_what_another_environment_includes_is_not_made_twice() -> None:
    assert without_included(["app", "worker", "dev", "worker"]) == ["worker", "dev"]


def test_an_unknown_name_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert setup_environments.main(["apps"]) == 2

    assert (
        "app, dev, worker, sam, ministack, clients, peers, bentoml, tools, node"
        in capsys.readouterr().err
    )


def test_too_little_disk_is_told_before_anything_is_made(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup_environments, "ROOT", root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(5 * 2**20))

    assert setup_environments.main(["app"]) == 1

    said = capsys.readouterr().err
    assert "set-up needs about 400 MB" in said
    assert "remedy: free some space" in said
    assert not (root / ".venv").exists()


class Usage:
    """What shutil.disk_usage answers, as far as it is asked."""

    def __init__(self, free: int) -> None:
        self.free = free
