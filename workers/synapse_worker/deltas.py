"""Reads the stream of a llama.cpp completion and says what is new in each piece. Pure."""

import json
from dataclasses import dataclass, field
from typing import Any

from synapse_worker.errors import InvalidRequest

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
INVALID_TOKENS = "Prompt contains invalid tokens"


class EngineError(RuntimeError):
    """The engine failed; the same request may succeed later."""


@dataclass(frozen=True)
class Delta:
    """What one piece of a stream adds. `finish_reason` is set on the last one."""

    text: str = ""
    new_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass
class DeltaReader:
    """Follows one completion. Feed it every piece, in order."""

    _seen_tokens: int = field(default=0)

    def read(self, piece: str | bytes) -> Delta:
        """The piece as a delta; raises what the engine reports as an error."""
        chunk = json.loads(piece)
        if "error" in chunk:
            raise _error(chunk["error"])
        choice = chunk["choices"][0]
        timings = chunk.get("timings") or {}
        predicted = timings.get("predicted_n", self._seen_tokens)
        new_tokens = predicted - self._seen_tokens
        self._seen_tokens = predicted
        return Delta(
            text=choice["text"],
            new_tokens=new_tokens,
            prompt_tokens=timings.get("prompt_n", 0) + timings.get("cache_n", 0),
            cached_tokens=timings.get("cache_n", 0),
            finish_reason=choice["finish_reason"],
            logprobs=tuple((choice.get("logprobs") or {}).get("content") or ()),
        )


def merge(deltas: list[Delta]) -> Delta:
    """All of a completion in one piece, for a caller that did not ask for a stream."""
    return Delta(
        text="".join(delta.text for delta in deltas),
        new_tokens=sum(delta.new_tokens for delta in deltas),
        prompt_tokens=deltas[-1].prompt_tokens,
        cached_tokens=deltas[-1].cached_tokens,
        finish_reason=deltas[-1].finish_reason,
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
    )


def vllm_logprobs(delta: Delta, wanted: int) -> list[dict[str, dict[str, Any]]]:
    """In the shape of vLLM's backend: for each token a map by token id, the chosen one first."""
    tokens = []
    for chosen in delta.logprobs:
        ranked = chosen["top_logprobs"]
        known = {entry["id"]: (rank, entry) for rank, entry in enumerate(ranked, start=1)}
        # A chosen token outside the best ones has a rank that llama.cpp does not tell.
        rank, likely = known.get(chosen["id"], (len(ranked) + 1, chosen))
        # Of the chosen one llama.cpp gives what it sent: nothing of what may begin a stop string,
        # and later all of that. It is right where a character took several tokens.
        told = chosen if REPLACEMENT in likely["token"] else likely
        entries = {str(chosen["id"]): _logprob({**chosen, "token": told["token"]}, rank)}
        for rank, entry in enumerate(ranked[:wanted], start=1):
            # The chosen one has the whole text of a character that took several tokens.
            entries.setdefault(str(entry["id"]), _logprob(entry, rank))
        tokens.append(entries)
    return tokens


def cumulative_logprob(delta: Delta) -> float:
    """Sum over the chosen tokens of this delta."""
    return float(sum(chosen["logprob"] for chosen in delta.logprobs))


def _logprob(entry: dict[str, Any], rank: int) -> dict[str, Any]:
    return {"logprob": entry["logprob"], "rank": rank, "decoded_token": entry["token"]}


def _error(error: dict[str, Any]) -> Exception:
    message = str(error.get("message", error))
    if message == INVALID_TOKENS:
        return InvalidRequest("'prompt_token_ids' has ids that are not in the vocabulary")
    if error.get("code") in (400, 422):
        return InvalidRequest(message)
    return EngineError(message)
