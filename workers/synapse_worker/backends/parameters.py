"""Reads a model's parameters: those of its config.pbtxt, overlaid by those of the supervisor."""

import json
import os
from collections.abc import Mapping
from typing import Any

MODEL_PARAMETERS_VARIABLE = "SYNAPSE_MODEL_PARAMETERS"


def model_parameters(
    model_config: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Name → text, as Triton's configuration has it."""
    source = os.environ if environ is None else environ
    given = model_config.get("parameters", {})
    parameters = {name: str(entry["string_value"]) for name, entry in given.items()}
    overlay = json.loads(source.get(MODEL_PARAMETERS_VARIABLE) or "{}")
    parameters.update(overlay.get(model_config.get("name"), {}))
    return parameters
