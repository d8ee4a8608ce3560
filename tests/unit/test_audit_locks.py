"""`make audit`: what is known to be vulnerable fails, and not to know is not to be well."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import audit_locks
from tests.infra.translation import ROOT

TODAY = datetime.now(UTC).date()
VULNERABLE = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.1.6"]}],
}
WELL: dict[str, Any] = {"name": "jinja2", "version": "3.1.2", "vulns": []}
UNKNOWN = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "app.txt").write_text("# a lock\njinja2==3.1.2 \\\n    --hash\n")
    let_pass(tmp_path)
    return tmp_path


def let_pass(root: Path, **entry: Any) -> None:
    text = "[exempt]\npeers = 'why'\n"
    if entry:
        until = entry.pop("until", TODAY)
        fields = "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
        text += f"[[ignored]]\n{fields}until = {until}\n"
    (root / "requirements" / "audit.toml").write_text(text)


def audited(root: Path, *dependencies: Any, strict: bool = False, fails: str = "") -> int:
    """The exit status, with a pip-audit that says this."""
    program = root / "pip-audit"
    answer = json.dumps({"dependencies": dependencies})
    body = f"sys.exit({fails!r})" if fails else f"print({answer!r})"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    program.chmod(0o755)
    return audit_locks.main(["--strict"] if strict else [], root, program)


def test_what_is_not_known_to_be_vulnerable_passes(root: Path) -> None:
    assert audited(root, WELL) == 0


def test_a_known_vulnerability_fails_and_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited(root, VULNERABLE) == 1

    told = capsys.readouterr().err
    assert "jinja2 3.1.2: CVE-1, PYSEC-1; mended in 3.1.6" in told


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("dependency", "fails"), [(None, "no route to host"), (UNKNOWN, "")], ids=["offline", "mirror"]
)
def test_where_nothing_can_be_looked_up_that_is_said_and_fails_only_on_demand(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    dependency: Any,
    fails: str,
    strict: bool,
) -> None:
    """pip-audit itself reports "No known vulnerabilities found" of what it does not find."""
    assert audited(root, dependency, strict=strict, fails=fails) == int(strict)

    told = capsys.readouterr().out
    assert "NOT LOOKED UP" in told
    assert "no vulnerability known" not in told


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_known_of_some_packages_is_not_enough_on_demand(
    root: Path, capsys: pytest.CaptureFixture[str], strict: bool
) -> None:
    with (root / "requirements" / "app.txt").open("a") as lock:
        lock.write("idna==3.10\n")
    unknown = {"name": "idna", "skip_reason": "Dependency not found on PyPI"}

    assert audited(root, WELL, unknown, strict=strict) == int(strict)

    told = capsys.readouterr()
    assert "not looked up: idna" in told.out
    assert ("of 1 packages nothing is known" in told.err) == strict


def test_without_the_program_nothing_is_looked_up(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit_locks.main([], root, root / "nowhere") == 0
    assert "NOT LOOKED UP" in capsys.readouterr().out


@pytest.mark.parametrize("id", ["PYSEC-1", "CVE-1"])
def test_a_vulnerability_is_let_pass_by_any_of_its_names_until_its_day(root: Path, id: str) -> None:
    let_pass(root, id=id, package="jinja2", reason="ours alone")
    assert audited(root, VULNERABLE) == 0

    let_pass(root, id=id, package="jinja2", reason="x", until=TODAY - timedelta(days=1))
    assert audited(root, VULNERABLE) == 1

    let_pass(root, id=id, package="another", reason="x")
    assert audited(root, VULNERABLE) == 1


def test_what_is_let_pass_and_not_found_any_more_fails(root: Path) -> None:
    let_pass(root, id="CVE-1", package="jinja2", reason="ours alone")

    assert audited(root, WELL) == 1


@pytest.mark.parametrize("entry", [{"id": "CVE-1", "package": "p"}, {"id": "CVE-1", "reason": "x"}])
def test_an_entry_without_a_reason_or_a_package_fails(root: Path, entry: dict[str, str]) -> None:
    let_pass(root, **entry)

    assert audited(root, WELL) == 1


def test_two_versions_of_a_package_are_both_asked_for() -> None:
    pins = [("a", "1"), ("a", "2"), ("b", "1")]

    assert audit_locks.one_version_each(pins) == [[("a", "1"), ("b", "1")], [("a", "2")]]


def test_every_lock_is_looked_at_but_those_with_a_reason() -> None:
    ignored, exempt = audit_locks.read_rules(ROOT / "requirements" / "audit.toml")
    paths = audit_locks.locks(ROOT, exempt)
    names = {str(path.relative_to(ROOT)) for path in paths}

    assert {"requirements/app.txt", "layers/core/requirements.txt"} <= names
    assert all(list(audit_locks.pins_of([path])) for path in paths)
    assert all(rule.reason for rule in ignored)
