"""The locks: complete, hashed, free of hosts and paths, and made from the .in files beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *(ROOT / "requirements").glob("*.txt"),
        *(ROOT / "layers").glob("*/requirements.txt"),
    ]
)
# Their .in files are read into another lock, or have one under another name.
SOURCES = {
    "requirements/app.txt": ["requirements/app.in", "requirements/build.in"],
    "requirements/dev.txt": [
        "requirements/app.in",
        "requirements/build.in",
        "requirements/dev.in",
    ],
}


@pytest.fixture(params=LOCKS)
def lock(request: pytest.FixtureRequest) -> str:
    name = request.param
    assert isinstance(name, str)
    return name


def entries(lock: str) -> list[str]:
    """The lock's requirements, each with its hashes and notes."""
    text = (ROOT / lock).read_text()
    return re.findall(r"^\w.*(?:\n[ #].*)*", text, re.MULTILINE)


def pins(lock: str) -> dict[str, set[str]]:
    """The pinned requirements by name: a package can have one version for each Python."""
    found: dict[str, set[str]] = {}
    for entry in entries(lock):
        pin = entry.splitlines()[0].removesuffix(" \\")
        found.setdefault(canonicalize_name(Requirement(pin).name), set()).add(pin)
    return found


def asked_for(lock: str) -> dict[str, Requirement]:
    """What the .in files ask for, by name."""
    sources = SOURCES.get(lock, [lock.removesuffix(".txt") + ".in"])
    lines = [line.strip() for name in sources for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_there_is_a_lock_for_every_in_file() -> None:
    sources = {name for lock in LOCKS for name in SOURCES.get(lock, [lock[:-4] + ".in"])}

    found = [*(ROOT / "requirements").glob("*.in"), *(ROOT / "layers").glob("*/requirements.in")]
    assert {path.relative_to(ROOT).as_posix() for path in found} == sources


def test_a_lock_names_no_host_index_or_absolute_path(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|file:|(?<=\s)/", text)


def test_every_requirement_is_one_exact_version_with_hashes(lock: str) -> None:
    for entry in entries(lock):
        requirement = Requirement(entry.splitlines()[0].removesuffix(" \\"))
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_a_lock_and_its_in_files_ask_for_the_same_packages(lock: str) -> None:
    sources = SOURCES.get(lock, [lock.removesuffix(".txt") + ".in"])
    via = re.compile(r"-r (\S+)")

    direct = {
        canonicalize_name(Requirement(entry.splitlines()[0].removesuffix(" \\")).name)
        for entry in entries(lock)
        if set(via.findall(entry)) & set(sources)
    }

    assert direct == set(asked_for(lock))


def test_a_lock_pins_versions_that_its_in_files_allow(lock: str) -> None:
    for name, requirement in asked_for(lock).items():
        for pin in pins(lock)[name]:
            (specifier,) = Requirement(pin).specifier
            assert requirement.specifier.contains(specifier.version), (pin, str(requirement))


@pytest.mark.parametrize(
    "narrower", ["requirements/dev.txt", *(name for name in LOCKS if name.startswith("layers/"))]
)
def test_locks_of_the_same_code_agree_with_the_servers(narrower: str) -> None:
    app, other = versions("requirements/app.txt"), versions(narrower)

    assert {name: other[name] for name in other if name in app} == {
        name: app[name] for name in other if name in app
    }


def versions(lock: str) -> dict[str, set[str]]:
    """What a lock pins, wherever: its markers also tell who asked for a package."""
    return {name: {pin.partition(" ;")[0] for pin in of} for name, of in pins(lock).items()}


def test_the_development_lock_includes_the_servers() -> None:
    assert set(pins("requirements/app.txt")) <= set(pins("requirements/dev.txt"))
