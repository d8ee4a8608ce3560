"""What a function or a worker's container imports is locked for it, and not only for the tests."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.infra.translation import ROOT, TEMPLATE, of_type, read

OF_THE_RUNTIME = {
    *("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"),
}
"""The managed Python runtime brings them."""

ENVIRONMENT = {
    "SYNAPSE_JOBS_TABLE": "jobs",
    "SYNAPSE_REGISTRY_TABLE": "registry",
    "SYNAPSE_FILES_TABLE": "files",
    "SYNAPSE_ACCESS_TABLE": "access",
    "SYNAPSE_BLOB_BUCKET": "blobs",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_TRACE_DISABLED": "true",
}

IMPORTS = Path(__file__).with_name("imports.py")

SHARED = "import synapse.bootstrap_aws"
"""What most functions load: once for all of them."""

LATER = {
    "api": "from synapse.bootstrap_aws import target; target().api",
    "authorize": "import synapse.adapters.tokens.jwks, synapse.adapters.tokens.verifier",
    "chat": "import uvicorn; from synapse.bootstrap_aws import target; target().api",
    "deliver": "from synapse.aws_webhooks import webhook_target; webhook_target().deliverer",
}
"""What a function loads when it is first needed, by its folder."""

FOLDERS = sorted(path.parent.name for path in ROOT.glob("functions/*/handler.py"))
ENGINE = "import synapse.adapters.triton.engine"
CONTAINER = (
    "synapse_container.__main__",
    "synapse_container.handler",
    "synapse_worker.cache.s3_store",
    "awslambdaric",
    "synapse.adapters.triton.engine",
)


def packages_of(lock: Path) -> set[str]:
    return {canonicalize_name(name) for name in re.findall(r"^(\S+?)==", lock.read_text(), re.M)}


def engine_users() -> set[str]:
    """The folders of the functions with the engine's layer."""
    functions = of_type(read(TEMPLATE), "AWS::Serverless::Function").values()
    return {
        Path(function["Properties"]["CodeUri"]).name
        for function in functions
        if "EngineLayer" in str(function["Properties"].get("Layers"))
    }


@cache
def packages_behind_modules() -> Mapping[str, list[str]]:
    """Of all that is installed, which takes half a second to look through."""
    return importlib.metadata.packages_distributions()


def faults(
    packages: Set[str], code: str = "", each: Mapping[str, tuple[Set[str], str]] | None = None
) -> dict[str, str]:
    """What a Python with no other packages says of the code, and of each with more; see IMPORTS."""
    asked = {
        "known": packages_behind_modules(),
        "packages": [*packages, "synapse"],
        "code": code,
        "each": {name: ([*more], then) for name, (more, then) in (each or {}).items()},
    }
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", IMPORTS],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@cache
def of_functions() -> Mapping[str, str]:
    """What is wrong with the imports of each function, by its folder."""
    layer = packages_of(ROOT / "layers" / "core" / "requirements.txt")
    engine = packages_of(ROOT / "layers" / "engine" / "requirements.txt")
    with_engine = engine_users()
    each = {
        folder: (engine, f"{code_of(folder)}\n{ENGINE}")
        if folder in with_engine
        else (frozenset[str](), code_of(folder))
        for folder in FOLDERS
    }
    return faults({*OF_THE_RUNTIME, *layer}, SHARED, each)


def code_of(folder: str) -> str:
    """Imports all of a function, also what it loads later."""
    modules = [path.stem for path in (ROOT / "functions" / folder).glob("[a-z]*.py")]
    imports = [f"import functions.{folder}.{module}" for module in modules]
    return "\n".join([*imports, LATER.get(folder, "")])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_imports_only_what_its_layers_and_the_runtime_have(folder: str) -> None:
    assert of_functions()[""] == ""
    assert of_functions()[folder] == ""


def test_a_container_imports_only_what_is_locked_for_it() -> None:
    packages = packages_of(ROOT / "requirements" / "container.txt")

    assert faults(packages, "\n".join(f"import {name}" for name in CONTAINER)) == {"": ""}


def test_what_is_not_locked_is_missed() -> None:
    code = "import functions.run_batch.handler"

    missed = faults(OF_THE_RUNTIME, each={"run_batch": (frozenset(), code)})

    assert "aws-lambda-powertools" in missed["run_batch"]
