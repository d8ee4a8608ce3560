"""Reading a small JSON document from an issuer: bounded in size and time, over https only."""

from __future__ import annotations

import json
import time
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

MAX_BYTES = 256 * 1024
TIMEOUT_S = 3.0

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class FetchError(Exception):
    """The document cannot be had; the message says why."""


def checked_url(url: str) -> str:
    """An address that may be asked: https, or http on this very machine.

    Raises:
        ValueError: any other.
    """
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not is_safe or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url!r} is no https address")
    return url


def fetch_json(url: str) -> dict[str, Any]:
    """The JSON object at that address. Blocks for `TIMEOUT_S`, and a little more at worst.

    Raises:
        FetchError: it cannot be had.
    """
    try:
        text = _read(checked_url(url))
        document = json.loads(text)
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise FetchError(f"{url}: {reason}") from error
    if not isinstance(document, dict):
        raise FetchError(f"{url}: not a JSON object")
    return document


def _read(url: str) -> bytes:
    deadline = time.monotonic() + TIMEOUT_S
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "synapse"})
    content = bytearray()
    with _opener(url).open(request, timeout=TIMEOUT_S) as response:
        while chunk := response.read1(65_536):
            content += chunk
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not whole after {TIMEOUT_S:g} s")
    return bytes(content)


class _NoRedirects(HTTPRedirectHandler):
    """Leaves redirects alone, so that they are errors: nobody is led elsewhere."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def _opener(url: str) -> OpenerDirector:
    # No proxy leads to this machine.
    proxies = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return build_opener(_NoRedirects(), *proxies)
