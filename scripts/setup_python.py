"""Finds a Python fit to make a virtual environment with.

Runs on whatever `python3` the machine has, so it keeps to what Python 3.7 understands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping  # noqa: UP035 - Python 3.7

PROBE = """
import json, sys
try:
    import ensurepip, venv
    can_venv = True
except ImportError:
    can_venv = False
try:
    import pip
    pip_major = int(pip.__version__.split(".")[0])
except Exception:
    pip_major = 0
print(json.dumps([list(sys.version_info[:3]), sys.implementation.name, can_venv, pip_major]))
"""
PROBE_TIMEOUT_S = 20
# `pip --python ENVIRONMENT` is there since 22.3.
PIP_FOR_ANOTHER_PYTHON = 23


class SetupError(Exception):
    """What went wrong, in one line, and what to do about it, in another."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True)
class PythonRange:
    """The Python versions an environment can be made with, both ends included."""

    lowest: tuple[int, int]
    highest: tuple[int, int]

    def __str__(self) -> str:
        low, high = (".".join(map(str, end)) for end in (self.lowest, self.highest))
        return f"Python {low} to {high}" if low != high else f"Python {low}"

    def holds(self, version: tuple[int, ...]) -> bool:
        return self.lowest <= version[:2] <= self.highest


@dataclass(frozen=True)
class Python:
    """An interpreter that was found and asked what it is."""

    path: str
    version: tuple[int, ...]
    implementation: str
    has_ensurepip: bool
    pip_major: int

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def can_make_venv(self) -> bool:
        return self.has_ensurepip or self.pip_major >= PIP_FOR_ANOTHER_PYTHON


def probe(path: str) -> Python | None:
    """Asks an interpreter what it is; None when it does not run (an empty pyenv shim, say)."""
    try:
        answer = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        version, implementation, has_ensurepip, pip_major = json.loads(answer.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Python(path, tuple(version), implementation, has_ensurepip, pip_major)


def candidates(environ: Mapping[str, str]) -> Iterator[str]:
    """Paths to try, best first: PATH, then what pyenv and uv keep off it."""
    names = ("python3.12", "python3.11", "python3", "python3.13", "python3.14")
    search_path = environ.get("PATH", os.defpath)
    for name in names:
        found = shutil.which(name, path=search_path)
        if found:
            yield found
    yield sys.executable
    home = Path(environ.get("HOME") or Path.home())
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for minor in ("3.12", "3.11", "3.13", "3.14"):
        yield from sorted(map(str, pyenv.glob(f"versions/{minor}.*/bin/python3")))
        yield from sorted(map(str, uv.glob(f"cpython-{minor}.*/bin/python3")))


def find_python(wanted: PythonRange, what_for: str, environ: Mapping[str, str]) -> Python:
    """The first interpreter in range that can make an environment.

    Raises:
        SetupError: There is none, or the one SYNAPSE_PYTHON names is not one.
    """
    chosen = environ.get("SYNAPSE_PYTHON")
    if chosen:
        return _check_chosen(chosen, wanted, what_for, environ)
    seen: list[Python] = []
    tried = set()
    for path in candidates(environ):
        if path in tried:
            continue
        tried.add(path)
        python = probe(path)
        if python is None:
            continue
        if _fits(python, wanted) and python.can_make_venv:
            return python
        seen.append(python)
    raise _none_fits(seen, wanted, what_for)


def _fits(python: Python, wanted: PythonRange) -> bool:
    return python.implementation == "cpython" and wanted.holds(python.version)


def _check_chosen(
    chosen: str, wanted: PythonRange, what_for: str, environ: Mapping[str, str]
) -> Python:
    path = shutil.which(chosen, path=environ.get("PATH", os.defpath))
    python = probe(path) if path else None
    if python is None:
        raise SetupError(
            f"SYNAPSE_PYTHON names {chosen}, which does not run",
            f"set it to a {wanted}, or unset it to have one found",
        )
    if not _fits(python, wanted):
        raise SetupError(
            f"SYNAPSE_PYTHON names {python.implementation} {python.version_text}, "
            f"but {what_for} needs {wanted}",
            f"set it to a {wanted}, or unset it to have one found",
        )
    if not python.can_make_venv:
        raise _no_venv(python)
    return python


def _no_venv(python: Python) -> SetupError:
    minor = ".".join(map(str, python.version[:2]))
    return SetupError(
        f"{python.path} cannot make virtual environments: it has no ensurepip and no pip",
        f"apt-get install python{minor}-venv (Debian, Ubuntu), then run this again",
    )


def _none_fits(seen: list[Python], wanted: PythonRange, what_for: str) -> SetupError:
    for python in seen:
        if _fits(python, wanted):
            return _no_venv(python)
    found = ", ".join(sorted({python.version_text for python in seen})) or "none"
    return SetupError(
        f"{what_for} needs {wanted}; found: {found}",
        "install one (Debian, Ubuntu: apt-get install python3.12 python3.12-venv; anywhere: "
        "uv python install 3.12), or name it in SYNAPSE_PYTHON",
    )
