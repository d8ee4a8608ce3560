"""Chat templates of model hubs, run as Hugging Face transformers runs them.

They are Jinja written for transformers, so the environment is the one that transformers makes:
sandboxed, the same whitespace rules, the same extra functions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MARKS_OF_THOUGHT = ("think>", "[THINK]")
"""What stands in the templates of models that think before they answer."""


class RefusedByTemplate(Exception):
    """The template itself objects to the conversation."""


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """The template, ready to render.

    Raises:
        TemplateError: it is not valid Jinja.
    """
    return _environment().from_string(template)


@dataclass(frozen=True, slots=True)
class Reads:
    """What can be read of a template: the variables that it looks up, and its texts.

    `words` are those that stand alone in its code, `thinks` says that thoughts are marked in it.
    """

    variables: frozenset[str]
    words: frozenset[str]
    thinks: bool


@lru_cache(maxsize=64)
def reads_of(template: str) -> Reads:
    """What the template reads.

    Raises:
        TemplateError: it is not valid Jinja.
    """
    from jinja2 import meta, nodes

    tree = _environment().parse(template)
    constants = [node.value for node in tree.find_all(nodes.Const)]
    return Reads(
        frozenset(meta.find_undeclared_variables(tree)),
        frozenset(value for value in constants if isinstance(value, str)),
        any(mark in template for mark in MARKS_OF_THOUGHT),
    )


def _environment() -> ImmutableSandboxedEnvironment:
    # Not before there is a conversation: who serves without one starts sooner.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from synapse.adapters.triton.generation_tag import GenerationTag

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", GenerationTag],
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise RefusedByTemplate(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML, which a prompt is not.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
