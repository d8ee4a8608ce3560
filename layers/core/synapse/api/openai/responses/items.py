"""The items of a conversation, as /v1/responses is sent them.

SDKs send back what they were answered, as they hold it: what is only told about an item (its id,
its status) is taken there, and has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from synapse.api.inputs import Text
from synapse.api.openai.schemas import BREAKPOINT, UNUSED, text_or_list
from synapse.api.schemas import Request
from synapse.api.wire import WireModel

MAX_ITEMS = 2048

Status = Annotated[Literal["in_progress", "completed", "incomplete"] | None, UNUSED]
ItemId = Annotated[str | None, UNUSED]
Phase = Annotated[Literal["commentary", "final_answer"] | None, UNUSED]


class Other(WireModel):
    """What is known elsewhere and not here: it is refused by its type."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str


class SentBack(Request):
    """Base of what SDKs hold and send back, with null for each field that they know and we do not.

    Which those are changes with their releases; null says nothing in any of them.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        known = cls.model_fields
        return {name: each for name, each in value.items() if each is not None or name in known}


class TextPart(SentBack):
    """Text that was given, or written."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Annotated[list[Any] | None, UNUSED] = None
    logprobs: Annotated[list[Any] | None, UNUSED] = None
    parsed: Annotated[Any, UNUSED] = None
    prompt_cache_breakpoint: Annotated[Any, BREAKPOINT] = None


class RefusalPart(SentBack):
    """What a model said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


def kind_of(value: Any) -> str:
    """The `type` of an object, as it was sent or as it was read; empty if it has none."""
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else ""


def _part(value: Any) -> str:
    kind = kind_of(value)
    if kind == "refusal":
        return "list[refusal]"
    return "list[text]" if kind in ("input_text", "output_text", "text", "") else "list[other]"


Part = Annotated[
    Annotated[TextPart, Tag("list[text]")]
    | Annotated[RefusalPart, Tag("list[refusal]")]
    | Annotated[Other, Tag("list[other]")],
    Discriminator(_part),
]
Content = Annotated[
    Annotated[str, Tag("str")] | Annotated[list[Part], Tag("list[]")],
    Discriminator(text_or_list),
]


class Message(SentBack):
    """A message of somebody; the assistant's also as they are answered."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: ItemId = None
    status: Status = None
    phase: Phase = None


class Call(SentBack):
    """A call of a function that the model asked for; `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: str
    id: ItemId = None
    status: Status = None
    parsed_arguments: Annotated[Any, UNUSED] = None


class CallOutput(SentBack):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: Text
    output: Content
    name: Annotated[str | None, UNUSED] = None
    id: ItemId = None
    status: Status = None


class ReasoningItem(WireModel):
    """What another server's model thought; models here write none, and read none."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["reasoning"]


ITEMS = {
    "": "list[message]",
    "message": "list[message]",
    "function_call": "list[call]",
    "function_call_output": "list[output]",
    "reasoning": "list[reasoning]",
}

Item = Annotated[
    Annotated[Message, Tag("list[message]")]
    | Annotated[Call, Tag("list[call]")]
    | Annotated[CallOutput, Tag("list[output]")]
    | Annotated[ReasoningItem, Tag("list[reasoning]")]
    | Annotated[Other, Tag("list[other]")],
    Discriminator(lambda value: ITEMS.get(kind_of(value), "list[other]")),
]
Input = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag("list[]")],
    Discriminator(text_or_list),
]
