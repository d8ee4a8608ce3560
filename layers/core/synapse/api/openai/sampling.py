"""What goes to the engine as it was given: sampling parameters, and forms of answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.api.openai.schemas import GenerationRequest
from synapse.domain.errors import InvalidRequest

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "min_tokens", "ignore_eos", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)
"""Parameters that have the same name and meaning here and there (vLLM's)."""

GUIDED = ("json", "regex", "choice", "grammar")
NO_FORM = {"json_object": False}

Forms = Mapping[str, Mapping[str, Any] | None]
"""The forms that an answer is to be held to, by the parameter that says so."""


def check_logit_bias(body: GenerationRequest) -> None:
    """Refuse keys that are no token ids.

    Raises:
        InvalidRequest: there is one.
    """
    for token in body.logit_bias or ():
        if not (token.isascii() and token.isdigit()):
            raise InvalidRequest(
                f"logit_bias: its keys are token ids, and {token!r} is none", param="logit_bias"
            )


def sampling(body: GenerationRequest) -> dict[str, Any]:
    """What was given of the parameters that go to the engine as they are."""
    given = {name: getattr(body, name) for name in SAMPLING}
    parameters = {name: value for name, value in given.items() if value not in (None, {})}
    if body.stop:
        parameters["stop"] = [body.stop] if isinstance(body.stop, str) else list(body.stop)
    return parameters


def vllm_forms(body: GenerationRequest) -> dict[str, Mapping[str, Any] | None]:
    """The forms that vLLM's parameters hold the answer to.

    Raises:
        InvalidRequest: one of them asks for several.
    """
    asked = body.structured_outputs
    nested = asked.model_dump(by_alias=True, exclude_none=True) if asked else {}
    if len(nested) > 1:
        reason = "structured_outputs: holds one constraint at most"
        raise InvalidRequest(reason, param="structured_outputs")
    forms: dict[str, Mapping[str, Any] | None] = {"structured_outputs": nested}
    for kind in GUIDED:
        value = getattr(body, f"guided_{kind}")
        forms[f"guided_{kind}"] = None if value is None else {kind: value}
    return forms


def one_form(forms: Forms, param: str) -> tuple[str, Mapping[str, Any]]:
    """The form that the answer is held to (empty if to none), and the parameter that says so.

    Raises:
        InvalidRequest: there are several; it names `param`.
    """
    given = [(name, form) for name, form in forms.items() if form and form != NO_FORM]
    if len(given) > 1:
        names = " and ".join(name for name, _ in given)
        reason = f"{param}: the answer can be held to one form, not to {names}"
        raise InvalidRequest(reason, param=param)
    return given[0] if given else ("structured_outputs", {})
