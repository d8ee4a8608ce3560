"""The models that are served: `<name>/model.json`, with `chat_template.jinja` beside it if any.

The catalogue in this package is the single truth about the models it names; a folder of the
operator's own adds to it, or replaces an entry by one of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from math import inf
from pathlib import Path

from synapse.domain.batching import BatchPolicy
from synapse.domain.extension import Extension
from synapse.domain.model import ModelSpec, Task

MODEL_FILE = "model.json"
TEMPLATE_FILE = "chat_template.jinja"
OUTPUT, DIMENSIONS = "max_output_tokens", "dimensions"

# A licence and a source are for people, and nobody should have to ask for them.
KEYS = frozenset(
    {
        *("name", "version", "task", "context_tokens", "max_output_tokens", "slots", "batch"),
        "dimensions",
        *("special_tokens", "owner", "created_at", "extensions", "licence", "source"),
        "tool_parser",
    }
)
TOOL_PARSERS = frozenset({"hermes"})
"""Forms in which models write calls of tools (`synapse.api.openai.calls`)."""

REQUIRED = (
    *("name", "version", "task", "context_tokens", "slots", "batch", "special_tokens"),
    *("licence", "source"),
)
"""What no entry does without; beside these one of "max_output_tokens" and "dimensions"."""

BATCH_KEYS = frozenset({"max_items", "max_tokens", "max_wait_ms"})
SPECIAL_TOKEN_KEYS = frozenset({"bos", "eos"})


class CatalogueError(ValueError):
    """A catalogue entry cannot be used; the text is one line that names the file and the key."""


def load_catalogue(extra: Path | None = None) -> tuple[ModelSpec, ...]:
    """All models by name: those of this package, then those of `extra`, which win.

    Folders without a `model.json` are passed over: `extra` may be a Triton model repository.

    Raises:
        CatalogueError: an entry is unreadable, incomplete or contradicts itself.
    """
    specs = _load(resources.files("synapse") / "catalogue")
    if extra is not None:
        try:
            if not extra.is_dir():
                raise CatalogueError(f"{extra}: there is no such folder of models")
            specs |= _load(extra)
        except OSError as error:
            where = error.filename or extra
            raise CatalogueError(f"{where}: cannot be read: {error.strerror or error}") from error
    return tuple(specs[name] for name in sorted(specs))


def _load(root: Traversable) -> dict[str, ModelSpec]:
    specs: dict[str, ModelSpec] = {}
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        if folder.is_dir() and (folder / MODEL_FILE).is_file():
            specs[folder.name] = _read(folder)
    return specs


def _read(folder: Traversable) -> ModelSpec:
    file = folder / MODEL_FILE
    template = folder / TEMPLATE_FILE
    entry = _Entry(str(file), "", _object(file), KEYS)
    _check_complete(entry)
    embeds = entry.task() is Task.EMBED
    alien = OUTPUT if embeds else DIMENSIONS
    if alien in entry.values:
        raise entry.error(alien, f"has no meaning for task {entry.task()}")
    spec = ModelSpec(
        name=entry.text("name"),
        version=entry.text("version"),
        task=entry.task(),
        context_tokens=entry.count("context_tokens"),
        max_output_tokens=0 if embeds else entry.count("max_output_tokens"),
        slots=entry.count("slots"),
        batch=_batch(entry),
        chat_template=_template(template) if template.is_file() else None,
        special_tokens=_special_tokens(entry),
        owner=entry.text("owner", "synapse"),
        created_at=entry.count("created_at", 0, least=0),
        extensions=entry.extensions(),
        tool_parser=entry.tool_parser(),
        dimensions=entry.count("dimensions") if embeds else 0,
    )
    entry.text("licence")
    entry.text("source")
    if spec.name != folder.name:
        raise entry.error("name", f"is {spec.name!r}, but the folder is {folder.name!r}")
    if spec.max_output_tokens > spec.context_tokens:
        raise entry.error("max_output_tokens", "is more than context_tokens")
    return spec


def _check_complete(entry: _Entry) -> None:
    """Tell all that is missing at once: who writes an entry need not start again for each key."""
    required, batch = list(REQUIRED), entry.values.get("batch")
    if "task" in entry.values and not {OUTPUT, DIMENSIONS} & entry.values.keys():
        required.append(DIMENSIONS if entry.values["task"] == Task.EMBED else OUTPUT)
    missing = [key for key in required if key not in entry.values]
    if isinstance(batch, dict):
        missing += [f"batch.{key}" for key in sorted(BATCH_KEYS) if key not in batch]
    if missing:
        raise entry.error(", ".join(missing), "is missing" if len(missing) == 1 else "are missing")


def _batch(entry: _Entry) -> BatchPolicy:
    batch = entry.inner("batch", BATCH_KEYS)
    return BatchPolicy(
        max_items=batch.count("max_items"),
        max_tokens=batch.count("max_tokens"),
        max_wait_ms=batch.duration("max_wait_ms"),
    )


def _special_tokens(entry: _Entry) -> Mapping[str, str]:
    tokens = entry.inner("special_tokens", SPECIAL_TOKEN_KEYS)
    return {key: tokens.text(key) for key in tokens.values}


def _template(file: Traversable) -> str:
    text = _text(file)
    if not text.strip():
        raise CatalogueError(f"{file}: is empty; without the file the model does not chat")
    return text


def _text(file: Traversable) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{file}: cannot be read: {error}") from error


def _object(file: Traversable) -> Mapping[str, object]:
    try:
        found = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise CatalogueError(f"{file}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CatalogueError(f"{file}: must be a JSON object")
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    """One JSON object of a catalogue file, read key by key."""

    file: str
    prefix: str
    values: Mapping[str, object]
    known: frozenset[str]

    def __post_init__(self) -> None:
        unknown = sorted(self.values.keys() - self.known)
        if unknown:
            known = ", ".join(sorted(self.known))
            raise self.error(unknown[0], f"is not a key of the catalogue; known are {known}")

    def error(self, key: str, problem: str) -> CatalogueError:
        return CatalogueError(f"{self.file}: {self.prefix}{key} {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"must be a text, not {value!r}")
        return value

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.error(key, f"must be a whole number from {least}, not {value!r}")
        return value

    def duration(self, key: str) -> float:
        value = self._value(key, None)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < inf:
            raise self.error(key, f"must be a number from 0, not {value!r}")
        return float(value)

    def task(self) -> Task:
        value = self.text("task")
        if value not in list(Task):
            raise self.error("task", f"must be one of {', '.join(Task)}, not {value!r}")
        return Task(value)

    def extensions(self) -> frozenset[Extension]:
        value = self._value("extensions", [])
        known = ", ".join(Extension)
        if not isinstance(value, list) or not all(each in list(Extension) for each in value):
            raise self.error("extensions", f"must be a list of {known}, not {value!r}")
        return frozenset(Extension(each) for each in value)

    def tool_parser(self) -> str | None:
        if "tool_parser" not in self.values:
            return None
        value = self.text("tool_parser")
        if value not in TOOL_PARSERS:
            known = ", ".join(sorted(TOOL_PARSERS))
            raise self.error("tool_parser", f"must be one of {known}, not {value!r}")
        return value

    def inner(self, key: str, known: frozenset[str]) -> _Entry:
        value = self._value(key, None)
        if not isinstance(value, dict):
            raise self.error(key, f"must be an object, not {value!r}")
        return _Entry(self.file, f"{self.prefix}{key}.", value, known)

    def _value(self, key: str, default: object) -> object:
        if key not in self.values and default is None:
            raise self.error(key, "is missing")
        return self.values.get(key, default)
