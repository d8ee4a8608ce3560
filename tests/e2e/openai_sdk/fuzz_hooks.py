"""What schemathesis, in an environment of its own, is told about this API; `test_fuzz` runs it.

Bodies made from the schemas alone name models that are not there and ask for everything at once,
and would go no further than that; so they are given a model that is there, and fewer options.
"""

from __future__ import annotations

import random
from typing import Any

import schemathesis

LLM = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
MODELS = {
    "/v1/embeddings": EMBEDDER,
    "/v1/chat/completions": LLM,
    "/v1/completions": LLM,
    "/v1/responses": LLM,
    "/async-infer": LLM,
    "/api/inference": LLM,
}
GENERATING = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
"""Where each of them is told how much to write."""
NEEDED = {"model", "messages", "prompt", "input"}
MAX_OPTIONS = 2
MAX_TOKENS = 2
KEYS = {"message", "type", "param", "code"}


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: Any, body: Any) -> Any:
    """A body that has a good chance to be served, and then costs little."""
    path = context.operation.path
    if not isinstance(body, dict) or path not in MODELS:
        return body
    if path in GENERATING:
        body = _thinned(body)
        body[GENERATING[path]] = MAX_TOKENS
    if isinstance(body.get("model"), str):
        body["model"] = MODELS[path]
    return body


def _thinned(body: dict[str, Any]) -> dict[str, Any]:
    """Few of the options, which ones depends on the body: most of them exclude each other."""
    options = sorted(set(body) - NEEDED)
    chosen = random.Random(repr(body)).sample(options, min(MAX_OPTIONS, len(options)))
    return {name: body[name] for name in body if name in NEEDED or name in chosen}


@schemathesis.check  # type: ignore[untyped-decorator]
def errors_have_openais_shape(context: Any, response: Any, case: Any) -> None:
    """Whatever is refused is refused in one shape, and what is busy says until when."""
    if response.status_code < 400:
        return
    told = response.json()
    assert set(told) == {"error"}, told
    assert set(told["error"]) == KEYS, told
    assert isinstance(told["error"]["message"], str), told
    assert isinstance(told["error"]["code"], str), told
    if response.status_code == 503:
        assert response.headers["retry-after"], "503 without Retry-After"


@schemathesis.check  # type: ignore[untyped-decorator]
def nothing_breaks(context: Any, response: Any, case: Any) -> None:
    """No room is told as 503, and has nothing to do with the input; any other 5xx is a defect."""
    if response.status_code >= 500:
        assert response.json()["error"]["code"] == "engine_overloaded", response.text
