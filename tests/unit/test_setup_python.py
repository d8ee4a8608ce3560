"""Which Python the environments are made with, and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from setup_python import PythonRange, SetupError, find_python, probe

TRITON = PythonRange((3, 11), (3, 12))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no Python but those a test puts into bin/."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    return tmp_path


def put_python(
    path: Path,
    version: tuple[int, int, int],
    *,
    implementation: str = "cpython",
    has_ensurepip: str = "true",
    pip_major: int = 23,
) -> str:
    """An interpreter that answers a probe and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f'[{list(version)}, "{implementation}", {has_ensurepip}, {pip_major}]'
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def environ(machine: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(machine / "bin"), "HOME": str(machine / "home"), **more}


def test_the_newest_that_triton_can_use_is_taken_from_path(machine: Path) -> None:
    put_python(machine / "bin/python3", (3, 13, 0))
    put_python(machine / "bin/python3.11", (3, 11, 7))
    wanted = put_python(machine / "bin/python3.12", (3, 12, 1))

    assert find_python(TRITON, "the worker", environ(machine)).path == wanted


def test_a_shim_that_does_not_run_is_passed_over(machine: Path) -> None:
    shim = machine / "bin/python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    wanted = put_python(machine / "bin/python3", (3, 11, 2))

    assert find_python(TRITON, "the worker", environ(machine)).path == wanted


@pytest.mark.parametrize(
    "place",
    [
        ".pyenv/versions/3.12.1/bin/python3",
        ".local/share/uv/python/cpython-3.11.7-linux-x86_64-gnu/bin/python3",
    ],
)
def test_one_that_pyenv_or_uv_keeps_off_path_is_found(machine: Path, place: str) -> None:
    put_python(machine / "bin/python3", (3, 9, 2))
    version = (3, 12, 1) if "3.12" in place else (3, 11, 7)
    wanted = put_python(machine / "home" / place, version)

    assert find_python(TRITON, "the worker", environ(machine)).path == wanted


def test_one_without_ensurepip_serves_when_its_pip_can_install_elsewhere(machine: Path) -> None:
    wanted = put_python(machine / "bin/python3", (3, 11, 2), has_ensurepip="false", pip_major=23)

    assert find_python(TRITON, "the worker", environ(machine)).path == wanted


def test_one_that_cannot_make_environments_is_named_with_the_package_that_mends_it(
    machine: Path,
) -> None:
    path = put_python(machine / "bin/python3", (3, 11, 2), has_ensurepip="false", pip_major=0)

    with pytest.raises(SetupError) as error:
        find_python(TRITON, "the worker", environ(machine))

    assert path in error.value.cause
    assert "apt-get install python3.11-venv" in error.value.remedy


def test_none_in_range_says_what_is_needed_and_what_was_found(machine: Path) -> None:
    put_python(machine / "bin/python3", (3, 13, 0))
    put_python(machine / "bin/python3.12", (3, 12, 0), implementation="pypy")

    with pytest.raises(SetupError) as error:
        find_python(TRITON, "the worker", environ(machine))

    assert error.value.cause == "the worker needs Python 3.11 to 3.12; found: 3.12.0, 3.13.0"
    assert "SYNAPSE_PYTHON" in error.value.remedy


def test_synapse_python_goes_before_all_others(machine: Path) -> None:
    put_python(machine / "bin/python3.12", (3, 12, 1))
    wanted = put_python(machine / "mine", (3, 11, 7))

    chosen = environ(machine, SYNAPSE_PYTHON=wanted)
    assert find_python(TRITON, "the worker", chosen).path == wanted


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        ((3, 13, 0), "names cpython 3.13.0, but the worker needs Python 3.11 to 3.12"),
        (None, "which does not run"),
    ],
)
def test_a_wrong_synapse_python_is_an_error_and_not_replaced_silently(
    machine: Path, version: tuple[int, int, int] | None, cause: str
) -> None:
    put_python(machine / "bin/python3.12", (3, 12, 1))
    mine = machine / "mine"
    if version is not None:
        put_python(mine, version)

    with pytest.raises(SetupError, match=cause):
        find_python(TRITON, "the worker", environ(machine, SYNAPSE_PYTHON=str(mine)))


def test_a_real_interpreter_answers_the_probe() -> None:
    python = probe(sys.executable)

    assert python is not None
    assert python.version == sys.version_info[:3]
