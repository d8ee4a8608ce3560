"""Chat templates of model hubs, run as Hugging Face transformers runs them.

They are Jinja written for transformers, so the environment is the one that transformers makes:
sandboxed, the same whitespace rules, the same extra functions.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template


class RefusedByTemplate(Exception):
    """The template itself objects to the conversation."""


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """The template, ready to render.

    Raises:
        TemplateError: it is not valid Jinja.
    """
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
    return environment.from_string(template)


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
