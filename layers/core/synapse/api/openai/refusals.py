"""Refusals further in, in terms of the body that was sent."""

from __future__ import annotations

import re

from synapse.api.json_values import EFFORT
from synapse.api.openai.requests import Ask
from synapse.domain.errors import (
    ContextLengthExceeded,
    InvalidInput,
    InvalidRequest,
    PayloadTooLarge,
)
from synapse.domain.model import ModelSpec

OF_FORM = re.compile(r"schema|grammar|regex|pattern", re.I)
"""What engines complain of that cannot apply the form they were to hold an answer to."""

REFUSALS = (InvalidInput, InvalidRequest, PayloadTooLarge)
Refusal = InvalidInput | InvalidRequest | PayloadTooLarge


def in_terms_of(ask: Ask, spec: ModelSpec, error: Refusal) -> Refusal:
    """The same refusal, by the parameter with which the caller asked for it."""
    if isinstance(error, ContextLengthExceeded):
        param = ask.prompt_at
        return ContextLengthExceeded(
            f"This model's maximum context length is {spec.context_tokens} tokens. "
            f"However, your {param} resulted in more tokens than that. Please reduce the "
            f"length of the {param}.",
            param=param,
        )
    if isinstance(error, InvalidInput) and _is_of_form(ask, error):
        return InvalidInput(f"{ask.told.form_from}: {error.message}", param=ask.told.form_from)
    here = {"messages": ask.prompt_at, EFFORT: ask.effort_at}.get(error.param or "", error.param)
    if here != error.param:
        reason = error.message.removeprefix(f"{error.param}: ")
        return type(error)(f"{here}: {reason}", param=here)
    return error


def _is_of_form(ask: Ask, error: InvalidInput) -> bool:
    if error.param is not None:
        return error.param == "structured_outputs"
    has_form = "structured_outputs" in ask.inputs[0].parameters
    return has_form and OF_FORM.search(error.message) is not None
