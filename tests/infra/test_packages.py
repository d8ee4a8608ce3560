"""What a function or a worker's container imports is locked for it, and not only for the tests."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
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

ONLY = """
import importlib.abc, json, re, sys

locked, known = json.loads(sys.argv[1])
named = lambda package: re.sub("[-_.]+", "-", package).lower()

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        owners = {named(owner) for owner in known.get(name.partition(".")[0], [])}
        if owners and owners.isdisjoint(locked):
            raise ModuleNotFoundError(f"{name} is of {owners}, which is not locked", name=name)

sys.meta_path.insert(0, Refuse())
"""
"""Hides what comes from no package of the first; the second says which are behind a module."""

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


def imported_with_only(packages: set[str], code: str) -> str:
    """The last line of what a Python with no other packages says; empty if all is well."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    given = json.dumps([[*packages, "synapse"], packages_behind_modules()])
    command = [sys.executable, "-W", "ignore", "-c", ONLY + code, given]
    done = subprocess.run(
        command,
        env={**ENVIRONMENT, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_imports_only_what_its_layers_and_the_runtime_have(folder: str) -> None:
    with_engine = folder in engine_users()
    packages = {*OF_THE_RUNTIME, *packages_of(ROOT / "layers" / "core" / "requirements.txt")}
    if with_engine:
        packages |= packages_of(ROOT / "layers" / "engine" / "requirements.txt")
    modules = [path.stem for path in (ROOT / "functions" / folder).glob("[a-z]*.py")]
    code = "\n".join(f"import functions.{folder}.{module}" for module in modules)

    later = [LATER.get(folder, ""), ENGINE if with_engine else ""]
    assert imported_with_only(packages, "\n".join([code, *later])) == ""


def test_a_container_imports_only_what_is_locked_for_it() -> None:
    packages = packages_of(ROOT / "requirements" / "container.txt")

    assert imported_with_only(packages, "\n".join(f"import {name}" for name in CONTAINER)) == ""


def test_what_is_not_locked_is_missed() -> None:
    missed = imported_with_only(OF_THE_RUNTIME, "import functions.run_batch.handler")

    assert "aws-lambda-powertools" in missed
