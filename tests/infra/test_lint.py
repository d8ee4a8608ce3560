"""The linters' word on the template, before and after SAM's transform."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.translation import ROOT, TEMPLATE, translated

CFN_LINT = Path(sys.executable).with_name("cfn-lint")
ASL_VALIDATOR = ROOT / "node_modules" / ".bin" / "asl-validator"
SAM_VENV = ROOT / os.environ.get("SYNAPSE_SAM_VENV", ".venv-sam")


def run(*command: str, cwd: Path = ROOT) -> str:
    """Nothing, or what a linter complains of."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def linters() -> dict[str, tuple[str, ...]]:
    """Commands that lint the template; cfn-lint also the nested ones.

    SAM has a cfn-lint of its own, which is asked too if it is of another version.
    """
    nested = sorted((ROOT / "infra").glob("*.yaml"))
    known = {"cfn-lint": (str(CFN_LINT), str(TEMPLATE), *map(str, nested))}
    of_sam = {path.name for path in SAM_VENV.glob("lib/python3.*/site-packages/cfn_lint-*")}
    if of_sam <= {f"cfn_lint-{importlib.metadata.version('cfn-lint')}.dist-info"}:
        return known
    sam = (str(SAM_VENV / "bin" / "sam"), "validate", "--lint", "--region", "us-east-1")
    return {**known, "sam": sam}


@pytest.mark.parametrize("command", linters().values(), ids=linters())
def test_linters_find_nothing(command: tuple[str, ...]) -> None:
    assert run(*command) == ""


def test_cfn_lint_finds_no_error_in_the_translated_template(tmp_path: Path) -> None:
    """Circular dependencies show only here: cfn-lint does not run SAM's transform itself."""
    template = dict(translated(), Transform="AWS::LanguageExtensions")
    path = tmp_path / "translated.json"
    path.write_text(json.dumps(template))

    # W3005: SAM adds dependencies that are implied already.
    assert run(str(CFN_LINT), "--ignore-checks", "W3005", "--", str(path)) == ""


@pytest.mark.parametrize(
    "definition", sorted((ROOT / "statemachines").glob("*.asl.json")), ids=lambda path: path.name
)
def test_asl_validator_finds_nothing(definition: Path) -> None:
    if not ASL_VALIDATOR.exists() or shutil.which("node") is None:
        pytest.skip("asl-validator is not installed: there is no npm here")

    assert run(str(ASL_VALIDATOR), "--json-path", str(definition)) == ""
