"""Values of JSON that are handed on as they are: schemas, variables of templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from synapse.domain.errors import InvalidRequest

EFFORT = "reasoning_effort"
"""The parameter that says how much to think, and the variable of templates that are told."""

MAX_VARIABLES_BYTES = 16 * 1024
"""Of what a chat template is given besides: switches and short texts, not what is to be read."""

OURS = frozenset(
    {
        *("messages", "tools", "add_generation_prompt", "continue_final_message"),
        *("bos_token", "eos_token", "unk_token", "pad_token"),
    }
)
"""The variables of a chat template that are not a caller's to set."""


def _writable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what Python reads as JSON and nobody else: NaN, infinities, half a surrogate pair."""
    _size(value)
    return value


def _size(value: dict[str, Any]) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise PydanticCustomError("json_value", "holds what JSON in UTF-8 cannot") from error


def _variables(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name in OURS:
            raise PydanticCustomError(
                "template_variable", "{name} is not to be set here", {"name": repr(name)}
            )
    if _size(value) > MAX_VARIABLES_BYTES:
        raise PydanticCustomError(
            "template_variables", "more than {size} bytes of JSON", {"size": MAX_VARIABLES_BYTES}
        )
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_writable)]

TemplateVariables = Annotated[
    dict[str, Any],
    AfterValidator(_variables),
    Field(description="Variables of the model's own chat template, which must read them (vLLM's)."),
]

Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    Field(description="How much to think; for models whose chat template can be told."),
]


def refuse_two_efforts(effort: str | None, variables: Mapping[str, Any], param: str) -> None:
    """Refuse an effort, asked for by `param`, beside another one among the variables.

    Raises:
        InvalidRequest: they differ.
    """
    if effort is not None and variables.get(EFFORT, effort) != effort:
        raise InvalidRequest(
            f"{param}: differs from that of chat_template_kwargs; give one", param=param
        )
