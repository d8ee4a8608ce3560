"""The snippets of docs/clients.md, run as they are printed: one client and one test each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import ROOT, venv_program
from tests.e2e.openai_sdk.target import Target
from tests.patience import PATIENCE_S

PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPET = re.compile(r"^<!-- client:([\w-]+) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = {name: (language, code) for name, language, code in SNIPPET.findall(PAGE)}
TIMEOUT_S = PATIENCE_S
VECTORS = "2 vectors of 384"
# What each must have printed, beside the capital of France.
PRINTED = {
    "curl": ['"finish_reason":"stop"', '"usage":{'],
    "curl-job": ['"status":"COMPLETED"', "Paris"],
    "curl-stream": ["data: {", '"finish_reason":"stop"', "data: [DONE]"],
    "openai-python": [VECTORS, "\ncompleted "],
    "openai-python-batch": ["completed", "completed=3, failed=0", "city-0", "city-1", "city-2"],
    "openai-node": [VECTORS, "\nresponse\n"],
    "langchain": [VECTORS],
    "litellm": [VECTORS],
    "llm": [],
}
IN_THE_CLIENTS_ENVIRONMENT = {"langchain", "litellm", "llm"}


def _clients(program: str) -> str:
    return str(venv_program("SYNAPSE_CLIENTS_VENV", ".venv-clients", program))


def _command(name: str, language: str, folder: Path) -> list[str]:
    """What runs the snippet, given on standard input or, where imports need it, in a file."""
    if language == "js":
        node = shutil.which("node")
        if node is None:
            pytest.skip("there is no Node.js")
        (folder / "node_modules").symlink_to(ROOT / "node_modules")
        return [node, "--input-type=module"]
    if language == "sh":
        return ["bash", "-euo", "pipefail"]
    assert language == "python"
    return [_clients("python") if name in IN_THE_CLIENTS_ENVIRONMENT else sys.executable, "-"]


def _environment(target: Target, folder: Path) -> dict[str, str]:
    """Nothing of the user's: no other key, no settings, no way out of this machine."""
    search_path = f"{Path(_clients('llm')).parent}:{os.environ['PATH']}"
    return {
        "PATH": search_path,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OPENAI_BASE_URL": target.base_url,
        "OPENAI_API_KEY": target.api_key,
        # LiteLLM asks the world for prices, and LangChain for a place for traces, unless told so.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
    }


def test_every_snippet_of_the_page_is_run() -> None:
    assert set(SNIPPETS) == set(PRINTED)
    unmarked = PAGE.count("```") // 2 - len(SNIPPETS)
    assert unmarked == 1  # the two variables, which the tests set


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("target", ["one machine"], indirect=True)
def test_a_snippet_runs_as_it_is_printed(target: Target, tmp_path: Path, name: str) -> None:
    language, code = SNIPPETS[name]

    ran = subprocess.run(
        _command(name, language, tmp_path),
        input=code,
        env=_environment(target, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    for words in ["Paris", *PRINTED[name]]:
        assert words in _joined(ran.stdout), ran.stdout


def _joined(output: str) -> str:
    """The output, with the text of streamed chunks put together behind it."""
    return output + "".join(re.findall(r'"content":"([^"]*)"', output))
