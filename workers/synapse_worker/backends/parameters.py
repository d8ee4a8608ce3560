"""Reads a model's parameters: those of its config.pbtxt, overlaid by those of the supervisor."""

import importlib.util
import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from synapse_worker.errors import InvalidRequest, WorkerError
from synapse_worker.path_text import path_of

REQUEST_PRIORITY = "request_priority"
"""A request's parameter, on vLLM's scale: lower runs first, 0 is ordinary. `priority` is Triton's
own, which it shows no backend and whose queues oversleep."""

PATHS = frozenset({"artifacts", "gguf_path", "model_path"})
MODEL_PARAMETERS_VARIABLE = "SYNAPSE_MODEL_PARAMETERS"


def model_parameters(
    model_config: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, str]:
    """Name → text, as Triton's configuration has it; paths start from the model's `folder`."""
    source = os.environ if environ is None else environ
    given = model_config.get("parameters", {})
    parameters = {name: str(entry["string_value"]) for name, entry in given.items()}
    overlay = json.loads(source.get(MODEL_PARAMETERS_VARIABLE) or "{}")
    parameters.update(overlay.get(model_config.get("name"), {}))
    for name in PATHS & parameters.keys():
        if folder is not None and parameters[name]:
            # Triton's repository holds links: what is missing is told where its owner would put it.
            parameters[name] = str(folder.resolve() / path_of(parameters[name]))
    return parameters


def request_priority(parameters: str) -> int:
    """Of the JSON of a request's parameters; 0 where it has none.

    Raises:
        InvalidRequest: it is no whole number.
    """
    priority = json.loads(parameters or "{}").get(REQUEST_PRIORITY, 0)
    if not isinstance(priority, int):
        raise InvalidRequest(f"'{REQUEST_PRIORITY}' must be a whole number")
    return priority


def numbers(
    parameters: Mapping[str, str], known: Set[str], texts: Set[str] = frozenset()
) -> dict[str, int]:
    """Those of the `known` parameters that are not `texts`.

    Raises:
        WorkerError: there is an unknown one, which is a mistake worth a stop; or one is no number.
    """
    unknown = set(parameters) - known
    if unknown:
        raise WorkerError(
            f"Unknown model parameter {', '.join(sorted(unknown))}",
            f"Known are {', '.join(sorted(known))}",
        )
    return {name: _number(name, value) for name, value in parameters.items() if name not in texts}


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise WorkerError(f"{name} must be a whole number, not {text!r}", "Correct it") from None


def package_folders(package: str) -> list[Path]:
    """Where an installed package is; none if it is not.

    It is looked for and not imported: importing a package of models may load an engine of its own.
    """
    spec = importlib.util.find_spec(package) if package else None
    locations = spec.submodule_search_locations if spec else None
    return [Path(location) for location in locations or ()]
