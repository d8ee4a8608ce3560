"""The linters' word on the template, before and after SAM's transform."""

from __future__ import annotations

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
SAM = ROOT / os.environ.get("SYNAPSE_SAM_VENV", ".venv-sam") / "bin" / "sam"


def run(*command: str, cwd: Path = ROOT) -> str:
    """Nothing, or what a linter complains of."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_cfn_lint_finds_nothing() -> None:
    nested = sorted((ROOT / "infra").glob("*.yaml"))

    assert run(str(CFN_LINT), str(TEMPLATE), *map(str, nested)) == ""


def test_cfn_lint_finds_no_error_in_the_translated_template(tmp_path: Path) -> None:
    """Circular dependencies show only here: cfn-lint does not run SAM's transform itself."""
    template = dict(translated(), Transform="AWS::LanguageExtensions")
    path = tmp_path / "translated.json"
    path.write_text(json.dumps(template))

    # W3005: SAM adds dependencies that are implied already.
    assert run(str(CFN_LINT), "--ignore-checks", "W3005", "--", str(path)) == ""


def test_sam_finds_the_template_valid() -> None:
    if not SAM.exists():
        pytest.skip(f"{SAM} is missing; `make check` installs it")

    assert run(str(SAM), "validate", "--lint", "--region", "us-east-1") == ""


@pytest.mark.parametrize(
    "definition", sorted((ROOT / "statemachines").glob("*.asl.json")), ids=lambda path: path.name
)
def test_asl_validator_finds_nothing(definition: Path) -> None:
    if not ASL_VALIDATOR.exists() or shutil.which("node") is None:
        pytest.skip("asl-validator is not installed: there is no npm here")

    assert run(str(ASL_VALIDATOR), "--json-path", str(definition)) == ""
