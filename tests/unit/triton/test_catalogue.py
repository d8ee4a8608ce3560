"""The catalogue of models: what the package serves, and what an operator adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.catalogue import CatalogueError, load_catalogue
from synapse.domain.batching import BatchPolicy
from synapse.domain.extension import Extension
from synapse.domain.model import ModelSpec, Task

MODEL: dict[str, Any] = {
    "name": "mine",
    "version": "2",
    "task": "generate",
    "context_tokens": 4096,
    "max_output_tokens": 1024,
    "slots": 8,
    "batch": {"max_items": 16, "max_tokens": 8192, "max_wait_ms": 2.5},
    "special_tokens": {"bos": "<s>"},
    "licence": "MIT",
    "source": "https://models.example/mine",
}


def write(root: Path, folder_name: str = "mine", **changes: Any) -> Path:
    folder = root / folder_name
    folder.mkdir(exist_ok=True)
    model = {key: value for key, value in {**MODEL, **changes}.items() if value is not ...}
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def test_the_package_serves_an_llm_an_encoder_and_an_echo() -> None:
    minilm, echo, smollm2 = load_catalogue()

    assert (minilm.name, minilm.task, minilm.dimensions) == ("all-minilm-l6-v2", Task.EMBED, 384)
    assert minilm.max_output_tokens == 0
    assert (echo.name, echo.task, echo.chat_template) == ("echo", Task.TEXT, None)
    assert (smollm2.name, smollm2.task) == ("smollm2-135m-instruct", Task.GENERATE)
    assert smollm2.chat_template is not None
    assert smollm2.special_tokens == {"bos": "<|im_start|>", "eos": "<|im_end|>"}


def test_an_operators_folder_adds_models(tmp_path: Path) -> None:
    more: dict[str, Any] = {"extensions": ["prompt_token_ids"], "tool_parser": "hermes"}
    folder = write(tmp_path, owner="us", created_at=1_700_000_000, **more)
    (folder / "chat_template.jinja").write_text("{{ messages }}")

    specs = load_catalogue(tmp_path)

    assert [spec.name for spec in specs] == [
        "all-minilm-l6-v2",
        "echo",
        "mine",
        "smollm2-135m-instruct",
    ]
    assert specs[2] == ModelSpec(
        name="mine",
        version="2",
        task=Task.GENERATE,
        context_tokens=4096,
        max_output_tokens=1024,
        slots=8,
        batch=BatchPolicy(max_items=16, max_tokens=8192, max_wait_ms=2.5),
        chat_template="{{ messages }}",
        special_tokens={"bos": "<s>"},
        owner="us",
        created_at=1_700_000_000,
        extensions=frozenset({Extension.PROMPT_TOKEN_IDS}),
        tool_parser="hermes",
    )


def test_an_operators_entry_wins(tmp_path: Path) -> None:
    write(tmp_path, "echo", name="echo", slots=3)

    assert {spec.name: spec.slots for spec in load_catalogue(tmp_path)}["echo"] == 3


def test_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "preprocess" / "1").mkdir(parents=True)
    (tmp_path / "preprocess" / "config.pbtxt").touch()
    (tmp_path / "README.md").touch()

    assert len(load_catalogue(tmp_path)) == len(load_catalogue())


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no such folder"):
        load_catalogue(tmp_path / "typo")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"slots": ...}, "slots is missing"),
        (
            {"task": ..., "slots": ..., "source": ..., "max_output_tokens": ...},
            "task, slots, source are missing",
        ),
        (
            {"slots": ..., "max_output_tokens": ...},
            "slots, max_output_tokens are missing",
        ),
        (
            {"version": ..., "batch": {"max_items": 1}},
            "version, batch.max_tokens, batch.max_wait_ms are missing",
        ),
        (
            {"task": "embed", "max_output_tokens": ..., "licence": ...},
            "licence, dimensions are missing",
        ),
        ({"slots": 0}, "slots must be a whole number from 1, not 0"),
        ({"slots": True}, "slots must be a whole number from 1, not True"),
        ({"slots": "8"}, "slots must be a whole number from 1, not '8'"),
        ({"context_tokens": 1.5}, "context_tokens must be a whole number"),
        ({"max_output_tokens": 5000}, "max_output_tokens is more than context_tokens"),
        ({"created_at": -1}, "created_at must be a whole number from 0"),
        ({"name": "other"}, "name is 'other', but the folder is 'mine'"),
        ({"name": ""}, "name must be a text"),
        ({"version": 1}, "version must be a text, not 1"),
        ({"task": "sing"}, "task must be one of generate, text, embed, not 'sing'"),
        ({"dimensions": 384}, "dimensions has no meaning for task generate"),
        ({"task": "embed"}, "max_output_tokens has no meaning for task embed"),
        ({"task": "embed", "max_output_tokens": ...}, "dimensions is missing"),
        ({"licence": ...}, "licence is missing"),
        ({"source": None}, "source must be a text"),
        ({"batch": ...}, "batch is missing"),
        ({"batch": []}, "batch must be an object"),
        ({"batch": {**MODEL["batch"], "max_items": -1}}, "batch.max_items must be"),
        ({"batch": {**MODEL["batch"], "max_wait_ms": -1}}, "batch.max_wait_ms must be"),
        ({"batch": {**MODEL["batch"], "max_wait_ms": float("inf")}}, "batch.max_wait_ms must"),
        ({"batch": {"max_items": 1, "max_tokens": 1}}, "batch.max_wait_ms is missing"),
        ({"batch": {**MODEL["batch"], "size": 1}}, "batch.size is not a key"),
        ({"special_tokens": {"pad": "x"}}, "special_tokens.pad is not a key"),
        ({"special_tokens": {"bos": 1}}, "special_tokens.bos must be a text"),
        ({"tool_parser": "telepathy"}, "tool_parser must be one of hermes, not 'telepathy'"),
        ({"tool_parser": None}, "tool_parser must be a text"),
        ({"extensions": ["telepathy"]}, "extensions must be a list of cached_tokens, prompt"),
        ({"extensions": "cached_tokens"}, "extensions must be a list"),
        ({"extensions": [[]]}, "extensions must be a list"),
        ({"context_size": 1}, "context_size is not a key of the catalogue; known are batch,"),
    ],
)
def test_an_error_names_the_file_and_the_key(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    folder = write(tmp_path, **changes)

    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path)

    assert str(caught.value).startswith(f"{folder / 'model.json'}: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{", "not JSON"), (b"[]", "must be a JSON object"), (b"\xff", "cannot be read")],
)
def test_a_file_that_is_no_object_is_an_error(tmp_path: Path, content: bytes, problem: str) -> None:
    file = write(tmp_path) / "model.json"
    file.write_bytes(content)

    with pytest.raises(CatalogueError, match=problem) as caught:
        load_catalogue(tmp_path)

    assert str(file) in str(caught.value)


def test_the_entry_that_the_docs_show_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "worker.md").read_text()
    shown = page.split("A whole `model.json`:")[1].split("```json\n")[1].split("```")[0]
    (tmp_path / "my-llm").mkdir()
    (tmp_path / "my-llm" / "model.json").write_text(shown)

    assert "my-llm" in {spec.name for spec in load_catalogue(tmp_path)}


def test_a_template_without_a_word_is_no_template(tmp_path: Path) -> None:
    """As a command leaves it that wrote nothing: each conversation would be an empty prompt."""
    (write(tmp_path) / "chat_template.jinja").write_text("\n")

    with pytest.raises(CatalogueError, match=r"mine/chat_template\.jinja: is empty"):
        load_catalogue(tmp_path)


def test_a_folder_that_cannot_be_looked_into_is_told_in_a_line(tmp_path: Path) -> None:
    """As one that is another user's; here its name is longer than any may be."""
    with pytest.raises(CatalogueError, match=r"x{300}: "):
        load_catalogue(tmp_path / ("x" * 300))
