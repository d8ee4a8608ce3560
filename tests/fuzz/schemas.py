"""The API's own document, and schemathesis: what it allows, what it forbids, and what follows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import ROOT, venv_program
from tests.fuzz.bodies import Route
from tests.fuzz.record import Record
from tests.fuzz.stage import Stage

PART = "OpenAPI"
HOOKS = ROOT / "tests" / "fuzz" / "schema_hooks.py"
CHECKS = (
    *("our_verdict", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance"),
)
SHARES = {"outsider": 0.6, "operator": 0.3, "nobody": 0.1}
"""Of the inputs, by who asks: nobody whose requests would end the others' keys."""

PER_EXAMPLE = 2.2
"""Requests to an operation for each of schemathesis' examples, roughly: measured."""

TIMEOUT_S = 1_800


def send_schemas(
    stage: Stage, record: Record, routes: Sequence[Route], inputs: int, number: int, folder: Path
) -> None:
    """Roughly so many; operations in the document that are no route are a fault."""
    for name, share in SHARES.items():
        examples = max(1, round(inputs * share / len(routes) / PER_EXAMPLE))
        phases = (
            "examples,fuzzing,stateful"
            if name != "outsider"
            else "examples,coverage,fuzzing,stateful"
        )
        _run(stage, record, name, examples, phases, number, folder)


def _run(
    stage: Stage,
    record: Record,
    name: str,
    examples: int,
    phases: str,
    number: int,
    folder: Path,
) -> None:
    caller = stage.callers[name]
    counted = folder / f"{name}.jsonl"
    counted.touch()
    credential = [f"--header=Authorization: {value}" for value in caller.headers.values()]
    command = [
        str(venv_program("SYNAPSE_CLIENTS_VENV", ".venv-clients", "schemathesis")),
        *("run", f"{stage.server.url}/openapi.json", "--checks", ",".join(CHECKS)),
        *("--phases", phases, "--max-examples", str(examples), "--seed", str(number)),
        *("--generation-database", "none", "--no-shrink", "--continue-on-failure"),
        *("--request-timeout", "30", "--warnings", "off", "--no-color", *credential),
    ]
    env = {
        **{"PATH": os.environ["PATH"], "HOME": str(folder), "SCHEMATHESIS_HOOKS": str(HOOKS)},
        **{"FUZZ_ROOT": str(ROOT), "FUZZ_COUNTED": str(counted)},
        "FUZZ_FOREIGN": " ".join(stage.foreign(caller)),
    }
    ran = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    for line in counted.read_text(encoding="utf-8").splitlines():
        method, path, status = json.loads(line)
        record.asked(PART, (method, path.replace("{", "<").replace("}", ">")), status)
    if ran.returncode != 0 or "Tested: " not in ran.stdout:
        record.wrong(
            f"{PART} as {name}",
            [f"schemathesis found something ({ran.returncode})"],
            ran.stdout[-15_000:] + ran.stderr[-2_000:],
        )
