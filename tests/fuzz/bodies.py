"""Bodies that are good, or nearly so, by route; `nasty.mutated` makes worse of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.generation import (
    CHAT_BODY,
    COMPLETION,
    MARK,
    METADATA,
    MODELS,
    PROMPTS,
    RESPONSE_BODY,
    SAMPLING,
    TURN,
    WORDS,
    both,
    either,
)
from tests.fuzz.nasty import as_json, mutated, texts, values

Route = tuple[str, str]
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"
URLS = st.sampled_from(
    (
        *("https://hooks.example.invalid/x", "https://hooks.example.invalid:8443/", "https://"),
        *("http://127.0.0.1/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/"),
        *("https://0x7f000001/", "https://2130706433/", "https://127.1/", "https://localhost./"),
        *("https://user:pass@hooks.example.invalid/", "https://[::ffff:10.0.0.1]/", "//x.invalid"),
        *(
            "https://hooks.example.invalid:99999/",
            "https://hooks.example.invalid:-1/",
            "javascript:1",
        ),
        *("https://[::1", "https://a b.invalid/", "https://\ud800.invalid/", "https://.invalid/"),
        *(
            "https://xn--a.invalid/",
            "https://ﬀ。invalid/",
            f"https://{'a' * 64}.invalid/",
            "gopher://x",
        ),
    )
)
"""None of them leads anywhere: names end in .invalid, addresses are this machine's or nobody's."""


PLAIN_JOB = st.fixed_dictionaries(
    {"model": st.just("echo"), "prompt": st.just(f"{MARK} is served")},
    optional={"metadata": st.just({"mark": MARK}), "sla": st.sampled_from(["gold", "silver"])},
)
TASK = st.fixed_dictionaries(
    {"data": st.fixed_dictionaries({"text": WORDS})},
    optional={
        "model": MODELS,
        "parameters": SAMPLING,
        "priority": st.sampled_from(["high", "normal", "low"]),
        "timeout": st.floats(0.001, 60),
        "callback_url": URLS,
    },
)
JOB = PLAIN_JOB | both(
    st.fixed_dictionaries({"model": MODELS}),
    both(
        either(prompt=WORDS) | either(messages=st.lists(TURN, max_size=3)) | either(input=PROMPTS),
        either(
            parameters=SAMPLING,
            priority=st.sampled_from(["high", "normal", "low"]),
            sla=st.sampled_from(["gold", "silver", "bronze"]),
            timeout=st.floats(0.001, 60),
            metadata=METADATA,
            callback_url=URLS,
        ),
    ),
)
LIMITS = either(
    requests_per_minute=st.integers(1, 10**12),
    tokens_per_minute=st.integers(1, 10**12),
    concurrent_jobs=st.integers(1, 10**12),
    max_tokens_per_request=st.integers(1, 10**12),
    monthly_usd=st.floats(0, 10**12),
)
EXPIRES = st.fixed_dictionaries(
    {"anchor": st.sampled_from(["created_at", "x"]), "seconds": st.integers(3_000, 3_000_000)}
)
SCOPES = st.lists(st.sampled_from(["inference", "batches", "usage", "admin"]), max_size=5)
UPLOAD_KIND = st.fixed_dictionaries(
    {
        "bytes": st.sampled_from([0, 1, 10, 40, 2**40]),
        "filename": WORDS,
        "mime_type": texts,
        "purpose": st.sampled_from(["batch", "batch", "assistants"]),
    },
    optional={"expires_after": EXPIRES},
)
LINE = st.fixed_dictionaries(
    {
        "custom_id": st.sampled_from(["a", "b"]) | WORDS,
        "method": st.sampled_from(["POST", "POST", "GET"]),
        "url": st.sampled_from([COMPLETIONS, COMPLETIONS, CHAT, "/v1/files", "/async-infer"]),
        "body": mutated(COMPLETION, 1) | mutated(CHAT_BODY, 1),
    }
)


BODIES: Mapping[Route, SearchStrategy[Any]] = {
    ("POST", "/async-infer"): JOB,
    ("POST", "/infer"): JOB,
    ("POST", "/api/inference"): TASK,
    ("POST", "/api/inference/batch"): st.fixed_dictionaries(
        {"requests": st.lists(mutated(TASK, 1), max_size=5)}
    ),
    ("POST", CHAT): CHAT_BODY,
    ("POST", COMPLETIONS): COMPLETION,
    ("POST", RESPONSES): RESPONSE_BODY,
    ("POST", EMBEDDINGS): st.fixed_dictionaries(
        {"model": MODELS, "input": PROMPTS},
        optional={
            "encoding_format": st.sampled_from(["float", "base64", "x"]),
            "dimensions": st.integers(-1, 1_000),
            "user": WORDS,
        },
    ),
    ("POST", "/v1/uploads"): UPLOAD_KIND,
    ("POST", "/api/admin/keys"): st.fixed_dictionaries(
        {"name": WORDS},
        optional={
            "tenant": st.sampled_from(["acme", "umbrella", "default", "a/b"]) | texts,
            "scopes": SCOPES,
            "models": st.lists(MODELS, max_size=2),
            "tiers": st.lists(st.sampled_from(["gold", "silver", "bronze"]), max_size=3),
            "limits": LIMITS,
            "expires_in_s": st.floats(0.001, 1e9),
        },
    ),
    ("POST", "/api/admin/keys/<key_id>/rotate"): either(grace_s=st.floats(0, 1e7)),
    ("PUT", "/api/admin/tenants/<name>"): st.fixed_dictionaries({"limits": LIMITS}),
    ("POST", "/api/auth/login"): st.fixed_dictionaries(
        {"username": st.sampled_from(["ada", "mallory"]) | texts, "password": WORDS}
    ),
    ("POST", "/api/webhooks"): st.fixed_dictionaries(
        {
            "url": URLS | texts,
            "events": st.lists(st.sampled_from(["job.completed", "batch.failed"]), max_size=3),
        }
    ),
}


def of_route(
    route: Route, files: SearchStrategy[str], parts: SearchStrategy[str]
) -> SearchStrategy[Any]:
    """JSON bodies of a route; for one whose body nobody knows just anything.

    `files` are ids of files, `parts` those of parts of uploads.
    """
    if route == ("POST", "/v1/batches"):
        return _batches(files)
    if route == ("POST", "/v1/uploads/<upload_id>/complete"):
        some = st.lists(parts, max_size=3)
        return st.fixed_dictionaries({"part_ids": some}, optional={"md5": texts})
    return BODIES.get(route, either(a=values))


def _batches(files: SearchStrategy[str]) -> SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            "input_file_id": files,
            "endpoint": st.sampled_from(
                [COMPLETIONS, COMPLETIONS, CHAT, EMBEDDINGS, "/v1/responses", "/x"]
            ),
            "completion_window": st.sampled_from(["24h", "1h", "1m", "0h", "-1h", "99999999h"]),
        },
        optional={"metadata": METADATA, "output_expires_after": EXPIRES},
    )


def jsonl() -> SearchStrategy[bytes]:
    """Files for batches: good lines, bad lines, and what is no line at all."""
    line = mutated(LINE, 1).map(as_json) | st.binary(max_size=60) | st.just(b"") | st.just(b"\r")
    glue = st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r", b"\xef\xbb\xbf\n", b"\0"])
    return st.builds(lambda between, lines: between.join(lines), glue, st.lists(line, max_size=8))
