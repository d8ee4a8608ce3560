"""Asks the package index for known vulnerabilities in what the locks name (`make audit`).

pip-audit says that all is well also when it could look nothing up; this tells the two apart. Where
there is no way to the index nothing is known, which is said, and fails only with `--strict`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = ROOT / ".venv-tools" / "bin" / "pip-audit"
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")
TIMEOUT_S = 300
MAX_CAUSE_CHARS = 200
NOT_LOOKED_UP = """\
audit: NOT LOOKED UP: nobody could be asked from here; nothing is known of {packages} packages.
audit: Run `make audit` where the index can be reached: it fails if it is not, or finds something.
audit: The cause: {cause}"""

Pin = tuple[str, str]
"""A package and its version."""


class NotLooked(Exception):
    """Nothing could be looked up; the message says why."""


@dataclass(frozen=True)
class Ignored:
    """A vulnerability that is let pass."""

    id: str
    package: str
    reason: str
    until: date

    def covers(self, found: Vulnerability) -> bool:
        """Whether it is this one."""
        return self.package == found.package and self.id in found.ids


@dataclass(frozen=True)
class Vulnerability:
    """What is known of a package in a version; `ids` are all its names."""

    package: str
    version: str
    ids: frozenset[str]
    mended_in: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}: {', '.join(sorted(self.ids))}; {self.mended_in}"


@dataclass
class Findings:
    """What the index knows of the packages: `unknown` are those that it does not have."""

    vulnerabilities: list[Vulnerability] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, dependency: Mapping[str, Any]) -> None:
        """Take in what pip-audit says of a package."""
        name, version = dependency["name"], dependency.get("version", "")
        if "skip_reason" in dependency:
            self.unknown.append(f"{name}: {dependency['skip_reason']}")
        for found in dependency.get("vulns", []):
            ids = frozenset({found["id"], *found.get("aliases", [])})
            fixed = ", ".join(found.get("fix_versions", []))
            mended = f"mended in {fixed}" if fixed else "not mended yet"
            self.vulnerabilities.append(Vulnerability(name, version, ids, mended))


def main(arguments: Sequence[str], root: Path = ROOT, pip_audit: Path = PIP_AUDIT) -> int:
    """Look, say what was found; the exit status."""
    try:
        ignored, exempt = read_rules(root / "requirements" / "audit.toml")
        pins = sorted(set(pins_of(locks(root, exempt))))
        findings = look_up(pins, pip_audit)
    except ValueError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    except NotLooked as error:
        print(NOT_LOOKED_UP.format(packages=len(pins), cause=str(error)[:MAX_CAUSE_CHARS]))
        return 1 if "--strict" in arguments else 0
    for text in findings.unknown:
        print(f"audit: not looked up: {text}")
    problems = judge(findings, ignored, datetime.now(UTC).date())
    if findings.unknown and "--strict" in arguments:
        problems.append(f"of {len(findings.unknown)} packages nothing is known")
    for problem in problems:
        print(f"audit: {problem}", file=sys.stderr)
    if not problems:
        looked = len(pins) - len(findings.unknown)
        print(f"audit: {looked} of {len(pins)} packages looked up, no vulnerability known")
    return 1 if problems else 0


def read_rules(path: Path) -> tuple[list[Ignored], frozenset[str]]:
    """The vulnerabilities that are let pass, and the locks that are not looked at.

    Raises:
        ValueError: an entry lacks something.
    """
    rules = tomllib.loads(path.read_text())
    ignored = []
    for entry in rules.get("ignored", []):
        try:
            each = Ignored(entry["id"], entry["package"], entry["reason"], entry["until"])
        except KeyError as error:
            raise ValueError(f"{path.name}: an entry lacks {error}") from error
        if not each.reason.strip():
            raise ValueError(f"{path.name}: {each.id} has no reason")
        ignored.append(each)
    return ignored, frozenset(rules.get("exempt", {}))


def locks(root: Path, exempt: Iterable[str]) -> list[Path]:
    """The locks of all environments and of the layers."""
    found = [*(root / "requirements").glob("*.txt"), *root.glob("layers/*/requirements.txt")]
    return sorted(path for path in found if path.stem not in exempt)


def pins_of(paths: Iterable[Path]) -> Iterable[Pin]:
    """The packages that locks name."""
    for path in paths:
        for line in path.read_text().splitlines():
            if match := PIN.match(line):
                yield match[1].lower(), match[2]


def look_up(pins: Sequence[Pin], pip_audit: Path) -> Findings:
    """What is known of the packages.

    Raises:
        NotLooked: of none of them anything could be learnt.
    """
    findings = Findings()
    for part in one_version_each(pins):
        for dependency in ask(part, pip_audit):
            findings.add(dependency)
    if len(findings.unknown) == len(pins):
        raise NotLooked(f"the index has none of them ({findings.unknown[0]})")
    return findings


def one_version_each(pins: Iterable[Pin]) -> list[list[Pin]]:
    """Lists in which no package has two versions, which pip-audit does not take."""
    parts: list[dict[str, str]] = []
    for name, version in pins:
        part = next((part for part in parts if name not in part), None)
        if part is None:
            parts.append(part := {})
        part[name] = version
    return [list(part.items()) for part in parts]


def ask(pins: Sequence[Pin], pip_audit: Path) -> list[dict[str, Any]]:
    """What pip-audit says of packages.

    Raises:
        NotLooked: it could not ask.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in pins))
        file.flush()
        options = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
        command = [str(pip_audit), *options, "--timeout", "10", "--requirement", file.name]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotLooked(str(error)) from error
    try:
        return list(json.loads(result.stdout)["dependencies"])
    except (ValueError, KeyError) as error:
        lines = result.stderr.strip().splitlines() or ["pip-audit said nothing"]
        raise NotLooked(lines[-1]) from error


def judge(findings: Findings, ignored: Sequence[Ignored], today: date) -> list[str]:
    """What is to be done about the findings, in words; nothing if all is well."""
    found = findings.vulnerabilities
    problems = [
        str(each)
        for each in found
        if not any(rule.covers(each) and today <= rule.until for rule in ignored)
    ]
    for rule in ignored:
        if today > rule.until:
            problems.append(f"{rule.id} was to be let pass until {rule.until}: look at it again")
        elif not any(rule.covers(each) for each in found):
            problems.append(f"{rule.id} is let pass, but {rule.package} has it no more: remove it")
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
