"""Answers kept for callers who ask for it: the same deterministic request is not computed twice."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from synapse.application.direct import DirectRequest
from synapse.application.payloads import decode_result, encode_input, encode_result
from synapse.domain.errors import Unavailable
from synapse.domain.inference import RANDOM_SEED, ModelInput, Result
from synapse.domain.job import Usage
from synapse.ports import BlobStore, Clock, Registry

logger = logging.getLogger(__name__)

PREFIX = "cache/"
"""Where the entries are in the blob store; what is there may be deleted at any time."""

MAX_AGE_S = 86_400
"""The longest an answer is kept; a store may forget what was written before that."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ResponseCache:
    """Answers by tenant, model, version and input. A cache never fails: it misses.

    Only what a model would answer alike again is kept: a vector, or a text that was written
    greedily (temperature 0) or from a seed.
    """

    blobs: BlobStore
    registry: Registry
    clock: Clock

    async def lookup(self, request: DirectRequest) -> Result | None:
        """The answer that was kept for such a request, if it is still fresh."""
        key = await self._key(request)
        if key is None:
            return None
        try:
            return self._fresh(key, await self.blobs.get(PREFIX + key))
        except KeyError:
            return None
        except Unavailable as error:
            logger.warning("response cache not read: %s", error.message)
            return None

    async def keep(self, request: DirectRequest, result: Result, max_age_s: float) -> None:
        """Keep the answer for at most `max_age_s` seconds, if it is one that may be kept."""
        key = await self._key(request)
        if key is None or max_age_s <= 0:
            return
        usage = result.usage
        entry = {
            "format": FORMAT,
            "key": key,
            "expires_at": self.clock() + min(max_age_s, MAX_AGE_S),
            "usage": [usage.prompt_tokens, usage.completion_tokens],
            "result": encode_result(result),
        }
        try:
            await self.blobs.put(PREFIX + key, json.dumps(entry, ensure_ascii=False).encode())
        except Unavailable as error:
            logger.warning("response cache not written: %s", error.message)

    async def _key(self, request: DirectRequest) -> str | None:
        spec = await self.registry.model(request.model)
        if spec is None or not is_deterministic(request.input):
            return None
        # Sorted anew: the order in which a caller names parameters makes no other request.
        value = json.loads(encode_input(request.input))
        text = json.dumps([request.caller.tenant, spec.name, spec.version, value], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _fresh(self, key: str, data: bytes) -> Result | None:
        try:
            entry: Any = json.loads(data)
            if (entry["format"], entry["key"]) != (FORMAT, key):
                return None
            if entry["expires_at"] <= self.clock():
                return None
            prompt_tokens, completion_tokens = entry["usage"]
            return decode_result(entry["result"], Usage(prompt_tokens, completion_tokens))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            logger.warning("an entry of the response cache is broken", extra={"key": key})
            return None


def is_deterministic(value: ModelInput) -> bool:
    """Whether the model would answer alike again."""
    if value.inputs:
        return True
    seed = value.parameters.get("seed")
    return value.parameters.get("temperature") == 0 or seed not in (None, RANDOM_SEED)
