"""Log probabilities as Triton's vLLM backend tells them: JSON, a map by token id for each token."""

from __future__ import annotations

import json
from typing import Any

from synapse.domain.inference import TokenLogprob


def read_logprobs(text: str, top: int) -> tuple[TokenLogprob, ...]:
    """The tokens of one response, each with the `top` likeliest in its place.

    The token that was written is the first of its map; it may be one of the likeliest too. A
    token that is only part of a character is told as U+FFFD.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    tokens = json.loads(text) if text else None
    return tuple(_token(list(token.values()), top) for token in tokens or ())


def _token(entries: list[dict[str, Any]], top: int) -> TokenLogprob:
    ranked = sorted((entry for entry in entries if entry["rank"] <= top), key=_rank)
    chosen = entries[0] if entries else {}
    return TokenLogprob(
        token=_text(chosen),
        logprob=float(chosen["logprob"]),
        top=tuple((_text(entry), float(entry["logprob"])) for entry in ranked),
    )


def _rank(entry: dict[str, Any]) -> int:
    return int(entry["rank"])


def _text(entry: dict[str, Any]) -> str:
    # vLLM has none for a token that is not in its vocabulary.
    return entry["decoded_token"] or ""
