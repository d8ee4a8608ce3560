"""Texts and token ids, one or many, as several routes take them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, StringConstraints, Tag

from synapse.domain.inference import TextOrTokens

MAX_INPUTS = 2048

Text = Annotated[str, StringConstraints(min_length=1)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]


def kind_of_prompt(value: Any) -> str:
    """Which branch of a union a value means, so that its error is about that branch."""
    if not isinstance(value, list):
        return "str"
    first = value[0] if value else ""
    if isinstance(first, list):
        return "list[list]"
    return "list[int]" if isinstance(first, int) else "list[str]"


Inputs = Annotated[
    Annotated[Text, Tag("str")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("list[str]")]
    | Annotated[Tokens, Tag("list[int]")]
    | Annotated[list[Tokens], Field(max_length=MAX_INPUTS), Tag("list[list]")],
    Discriminator(kind_of_prompt),
]
"""What is to be embedded: a text or many, the ids of a text's tokens or those of many texts."""


def is_single(value: Any) -> bool:
    """Whether it is one text, not a list of them."""
    return kind_of_prompt(value) in ("str", "list[int]")


def texts_or_tokens(value: Any) -> tuple[TextOrTokens, ...]:
    """Each of the texts that a validated value of such a union holds."""
    each = [value] if is_single(value) else value
    return tuple(one if isinstance(one, str) else tuple(one) for one in each)
