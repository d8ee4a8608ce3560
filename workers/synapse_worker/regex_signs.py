"""How much of a regular expression an engine is given. Pure.

Each part that may be left out or repeated can be what comes next, so their number counts at least
squared: 4,000 times `.*`, 8 kB, keep LLGuidance for 13 seconds, at which all others wait. How
often a part is repeated costs nothing, and one repetition in another is no more than both.
"""

import re
from collections.abc import Iterable

from synapse_worker.errors import InvalidRequest

MAX_SIGNS = 500
"""A tenth of a second; 1,000 take one."""

# A bracket may have an empty alternative; a class of characters may be of half of Unicode.
SIGNS = re.compile(r"\\[^pP]|(\\[pP]\{?|\(\??|[*+?{])", re.DOTALL)


def signs_in(text: str) -> int:
    """How many signs of repetition, and brackets, a regular expression has."""
    return sum(1 for found in SIGNS.finditer(text) if found[1])


def check_signs(kind: str, holder: str, texts: Iterable[str]) -> None:
    """Refuse regular expressions, or grammars, that would hold up an engine.

    Raises:
        InvalidRequest: together they have more signs of repetition than `MAX_SIGNS`.
    """
    signs = sum(map(signs_in, texts))
    if signs > MAX_SIGNS:
        raise InvalidRequest(
            f"'structured_outputs.{kind}': {holder} {signs} signs of repetition and brackets "
            f"(each of * + ? {{ ( and \\p is one), of which {MAX_SIGNS} are allowed; use fewer, "
            "such as a{2,9} for many a?"
        )
