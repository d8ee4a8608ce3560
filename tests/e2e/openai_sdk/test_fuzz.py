"""The whole API, asked for thousands of odd things that its own document allows or forbids."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.daemon import ROOT, venv_program
from tests.e2e.one_machine.running import Server

HOOKS = ROOT / "tests" / "e2e" / "openai_sdk" / "fuzz_hooks.py"
# 405 with `Allow` is tested by itself: a path like /api/inference/batch has two routes.
CHECKS = (
    *("nothing_breaks", "errors_have_openais_shape", "status_code_conformance"),
    *("content_type_conformance", "response_schema_conformance", "response_headers_conformance"),
)
ALL = "inference,batches,usage,admin"
EXAMPLES = 10
TIMEOUT_S = 900


def test_the_api_does_what_its_document_says_and_never_breaks(
    sdk_server: Server, tmp_path: Path
) -> None:
    command = [
        str(venv_program("SYNAPSE_CLIENTS_VENV", ".venv-clients", "schemathesis")),
        *("run", f"{sdk_server.url}/openapi.json", "--checks", ",".join(CHECKS)),
        *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
        *("--generation-database", "none", "--no-shrink", "--continue-on-failure"),
        *("--header", f"Authorization: Bearer {sdk_server.new_key('--scopes', ALL)}"),
        *("--request-timeout", "30", "--warnings", "off", "--no-color"),
    ]

    ran = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SCHEMATHESIS_HOOKS": str(HOOKS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Tested: " in ran.stdout
    assert "restarted" not in sdk_server.log.read_text(), "the worker went down"
