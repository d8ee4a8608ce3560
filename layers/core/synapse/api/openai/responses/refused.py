"""What of OpenAI's Responses API cannot be honoured here, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.api.openai.responses.items import Other
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.unsupported import CHANGES_NOTHING, UnsupportedParameter, refuse_unsupported
from synapse.domain.errors import InvalidRequest

SEND_ALL = "; nothing is stored here: send the whole conversation in input"

RESPONSES_CHANGE_NOTHING: Mapping[str, tuple[Any, ...]] = {
    **CHANGES_NOTHING,
    "access_programs": (),
    "background": (False,),
    "context": ("auto",),
    "context_management": ([],),
    "conversation": (),
    "generate_summary": ("auto",),
    "image": (),
    "max_tokens": (),
    "max_tool_calls": (),
    "messages": (),
    "mode": ("standard",),
    "previous_response_id": (),
    "prompt": (),
    "response_format": (),
    "summary": ("auto",),
    "truncation": ("disabled",),
}
"""The values of each that change nothing, besides null."""

INSTEAD: Mapping[str, str] = {
    "background": "; send it to POST /async-infer, which answers at once and keeps the result",
    "context_management": SEND_ALL,
    "conversation": SEND_ALL,
    "max_tokens": "; use max_output_tokens",
    "messages": "; use input",
    "previous_response_id": SEND_ALL,
    "priority": "; use service_tier",
    "prompt": SEND_ALL,
    "response_format": "; use text.format",
    "store": SEND_ALL,
    "truncation": "; leave out what does not fit",
}

OTHER_ITEMS: Mapping[str, str] = {"item_reference": SEND_ALL}


def refuse_in(body: ResponsesRequest) -> None:
    """Refuse what of a body cannot be honoured.

    Raises:
        InvalidRequest: there is something; it names where.
    """
    places = {
        "": body,
        "reasoning.": body.reasoning,
        "text.": body.text,
        "stream_options.": body.stream_options,
    }
    for place, part in places.items():
        if part is not None:
            refuse_unsupported(part, place, RESPONSES_CHANGE_NOTHING, INSTEAD)
    if body.stream_options is not None and not body.stream:
        reason = "stream_options: is only for requests with stream: true"
        raise InvalidRequest(reason, param="stream_options")
    for at, tool in enumerate(body.tools or ()):
        if isinstance(tool, Other):
            raise not_known(tool, f"tools.{at}.", "'function'")
    if isinstance(body.tool_choice, Other):
        raise not_known(body.tool_choice, "tool_choice.", "'function' and 'allowed_tools'")


def not_known(found: Other, place: str, known: str) -> UnsupportedParameter:
    """That something of this type is not understood, and what is."""
    param = f"{place}type"
    instead = OTHER_ITEMS.get(found.type, "")
    return UnsupportedParameter(
        f"{param}: {found.type!r} is not understood here, only {known}{instead}", param=param
    )
