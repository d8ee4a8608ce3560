"""What the Makefile does in which order."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def dry_run(folder: Path, *arguments: str) -> str:
    """What make would do there; where it was called by another it tells of folders as well."""
    command = ["make", "--dry-run", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def words_of(told: str, what: str) -> list[str]:
    """The words of the first command that has that in it."""
    lines = told.replace("\\\n", "").splitlines()
    return shlex.split(next(line for line in lines if what in line))


def test_a_deployment_that_says_too_little_is_refused_before_it_is_built() -> None:
    """The build takes minutes."""
    told = dry_run(ROOT, "deploy")

    steps = ("say where Triton is", "sam build", "sam deploy")
    assert sorted(steps, key=told.index) == list(steps)


def words_of_deploy(folder: Path, parameters: str) -> list[str]:
    """What SAM is called with to deploy from there, and what stands before it."""
    told = dry_run(folder, "deploy", "ENGINE_URL=host:8001", f"PARAMETERS={parameters}")
    return words_of(told, "sam deploy")


def test_parameters_keep_their_quotes_on_the_way_to_sam() -> None:
    """Of a value that is not quoted, SAM takes no more than what comes before its first quote."""
    windows = """WarmWindows='[{"pool": "gpu-ecs", "model": "m"}]'"""

    words = words_of_deploy(ROOT, f"{windows} GpuEcsMaxWorkers=4")

    assert words[-1] == f"{windows} GpuEcsMaxWorkers=4"
    assert words[-2].startswith("PythonRuntime=")


def test_a_checkout_may_be_in_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Brot und Butter"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    python = f"{folder}/.venv-sam/bin/python"

    assert words_of_deploy(folder, "")[:2] == [f"PYTHON={python}", ".venv-sam/bin/sam"]
    for name in ("core", "engine"):
        makefile = str(ROOT / "layers" / name / "Makefile")
        target = f"build-{name.capitalize()}Layer"
        told = dry_run(folder, f"--file={makefile}", f"PYTHON={python}", target)
        assert words_of(told, " pip ")[:3] == [python, "-m", "pip"]
