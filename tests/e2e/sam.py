"""The real `sam build` and `sam deploy`, against an emulator."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.daemon import ROOT, venv_program
from tests.e2e.emulator import CREDENTIALS

SAM_TIMEOUT_S = 600
CONFIG = str(ROOT / "samconfig.toml")


def build(build_dir: Path, version: str) -> Path:
    """Build the application for this machine and this version of Python; the built template."""
    env = {
        "PYTHON": str(venv_program("SYNAPSE_SAM_VENV", ".venv-sam", "python")),
        "PYTHON_VERSION": version,
        "ARCH": platform.machine(),
    }
    sam("build", "--build-dir", str(build_dir), "--no-cached", env=env)
    return build_dir / "template.yaml"


def deploy(template: Path, endpoint_url: str, stack: str, parameters: Mapping[str, str]) -> None:
    """Deploy what was built for this machine as samconfig's `local` environment, but for its name.

    The parameters are those besides the stage and the architecture.
    """
    architecture = "arm64" if platform.machine() == "aarch64" else "x86_64"
    given = {"Stage": "local", "Architecture": architecture, **parameters}
    overrides = [f"{key}={value}" for key, value in given.items()]
    sam(
        *("deploy", "--template-file", str(template), "--stack-name", stack),
        *("--parameter-overrides", *overrides),
        env={"AWS_ENDPOINT_URL": endpoint_url},
    )


def sam(*arguments: str, env: Mapping[str, str]) -> str:
    """Run SAM with samconfig's `local` environment; its output, or an error that quotes it."""
    program = venv_program("SYNAPSE_SAM_VENV", ".venv-sam", "sam")
    result = subprocess.run(
        [str(program), *arguments, "--config-file", CONFIG, "--config-env", "local"],
        cwd=ROOT,
        env={**_environment(), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SAM_TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"sam {arguments[0]} failed:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def python_version(python: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([str(python), "-c", code], text=True).strip()


def _environment() -> dict[str, str]:
    """The caller's, but for what would take SAM elsewhere or slow it down."""
    unwanted = ("AWS_", "SAM_", "PYTHONDONTWRITEBYTECODE", "PYTHON_VERSION", "ARCH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    return {**kept, **CREDENTIALS, "SAM_CLI_TELEMETRY": "0"}
