"""The catalogue's promises, held against the worker's configuration of the same models."""

from __future__ import annotations

import re

import pytest

from synapse.domain.extension import Extension
from synapse.domain.model import ModelSpec, Task
from synapse_worker.config import BUNDLED_MODELS
from synapse_worker.gguf import read_metadata
from tests.integration.worker.test_catalogue import gguf


def repository_config(model: ModelSpec) -> str:
    return (BUNDLED_MODELS / model.name / "config.pbtxt").read_text()


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "all-minilm-l6-v2", "echo"])
def test_a_models_version_is_one_that_triton_has(
    catalogue: dict[str, ModelSpec], name: str
) -> None:
    assert (BUNDLED_MODELS / name / catalogue[name].version / "model.py").is_file()


def test_each_task_is_how_the_model_is_configured(catalogue: dict[str, ModelSpec]) -> None:
    for model in catalogue.values():
        decoupled = "decoupled: true" in repository_config(model)
        assert decoupled == (model.task is Task.GENERATE), model.name


def test_a_batch_of_texts_fits_into_one_call(echo: ModelSpec) -> None:
    found = re.search(r"^max_batch_size: (\d+)$", repository_config(echo), re.MULTILINE)

    assert found is not None
    assert echo.batch.max_items <= int(found[1])


def test_an_embedding_is_as_long_and_reads_as_much_as_the_catalogue_says(
    catalogue: dict[str, ModelSpec],
) -> None:
    minilm = catalogue["all-minilm-l6-v2"]
    config = repository_config(minilm)

    assert f'name: "embedding" data_type: TYPE_FP32 dims: [ {minilm.dimensions} ]' in config
    assert f'"max_tokens" value {{ string_value: "{minilm.context_tokens}" }}' in config
    found = re.search(r"^max_batch_size: (\d+)$", config, re.MULTILINE)
    assert found is not None
    assert minilm.batch.max_items <= int(found[1])


def test_special_tokens_are_the_models_own(llm: ModelSpec) -> None:
    metadata = read_metadata(gguf())

    for kind, token in llm.special_tokens.items():
        assert vocabulary_entry(metadata[f"tokenizer.ggml.{kind}_token_id"]) == token


def vocabulary_entry(number: int) -> str:
    """Read on its own: the metadata leave the vocabulary out."""
    with gguf().open("rb") as file:
        head = file.read(1_000_000)
    key = b"tokenizer.ggml.tokens"
    kinds_and_length = 4 + 4 + 8
    at = head.index(key) + len(key) + kinds_and_length
    for _ in range(number):
        at += 8 + int.from_bytes(head[at : at + 8], "little")
    size = int.from_bytes(head[at : at + 8], "little")
    return head[at + 8 : at + 8 + size].decode()


def test_each_extension_is_a_tensor_that_the_worker_takes(
    catalogue: dict[str, ModelSpec],
) -> None:
    tensors = {
        Extension.CACHED_TOKENS: "return_num_cached_tokens",
        Extension.PROMPT_TOKEN_IDS: "prompt_token_ids",
    }

    for model in catalogue.values():
        for extension, tensor in tensors.items():
            taken = f'name: "{tensor}"' in repository_config(model)
            assert taken == (extension in model.extensions), (model.name, extension)
