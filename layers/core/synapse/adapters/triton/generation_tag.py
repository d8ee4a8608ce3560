"""`{% generation %}`, with which templates mark for training what the model is to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2.ext import Extension
from jinja2.nodes import Scope

if TYPE_CHECKING:
    from jinja2.parser import Parser


class GenerationTag(Extension):
    """A prompt has what is inside, as if the marks were not there."""

    tags = {"generation"}  # noqa: RUF012 - as its base declares it

    def parse(self, parser: Parser) -> Scope:
        """The body of the block in its place; what it sets ends with it, as in transformers."""
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), True), lineno=line)
