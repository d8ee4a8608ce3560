"""Webhooks over HTTP: one connection for one attempt, no redirects, no proxies, no patience."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import httpcore

from synapse.adapters.web.guarded import GuardedNetwork, NotPublic, Resolve
from synapse.adapters.web.lookups import Lookups
from synapse.domain.delivery import TIMEOUT_S, Answer
from synapse.domain.webhook_url import WebhookUrl
from synapse.ports import Clock

REDIRECTS = range(300, 400)


class HttpSender:
    """See the port `Sender`. httpcore follows no redirect and looks at no environment by itself."""

    def __init__(
        self,
        clock: Clock,
        *,
        lookups: Lookups | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`tls` says whose certificates are trusted: without it, those that browsers trust."""
        self._clock = clock
        self._lookups = lookups or Lookups()
        self._tls = tls
        self._tls_loading = asyncio.Lock()
        self._timeout_s = timeout_s

    async def post(
        self, tenant: str, url: WebhookUrl, headers: Mapping[str, str], body: str
    ) -> Answer:
        """See the port."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                tls = await self._trusted() if url.scheme == "https" else None
                resolve = partial(self._resolved, tenant, limit)
                return await self._post(url, headers, body.encode(), tls, resolve)
        except TimeoutError:
            return Answer(error=f"no answer within {self._timeout_s:g} s")
        except NotPublic:
            # Which address it was would tell strangers what names stand for in our network.
            return Answer(error="the host has an address that is not public, or none")
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            return Answer(error=f"no connection: {_plain(error)}")
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            ssl.SSLError,
            OSError,
        ) as error:
            return Answer(error=f"the connection broke: {_plain(error)}")

    async def _trusted(self) -> ssl.SSLContext:
        """Whose certificates are trusted; reading them takes tens of milliseconds, once."""
        async with self._tls_loading:
            if self._tls is None:
                self._tls = await asyncio.to_thread(httpcore.default_ssl_context)
        return self._tls

    async def _resolved(
        self, tenant: str, limit: asyncio.Timeout, host: str, port: int
    ) -> Sequence[str]:
        """The host's addresses. The receiver's time begins only when they are asked for."""
        limit.reschedule(None)
        lookup = await self._lookups.begun(tenant, host, port)
        limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        return await lookup

    async def _post(
        self,
        url: WebhookUrl,
        headers: Mapping[str, str],
        body: bytes,
        tls: ssl.SSLContext | None,
        resolve: Resolve,
    ) -> Answer:
        network = GuardedNetwork(is_allowed=url.is_allowed, resolve=resolve)
        sent = {**headers, "connection": "close", "content-length": str(len(body))}
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=tls, max_keepalive_connections=0, network_backend=network
            ) as pool,
            pool.stream(
                "POST",
                httpcore.URL(url.text),
                headers=list(sent.items()),
                content=body,
            ) as response,
        ):
            # The status says all: the body is not read, however long it is.
            found = {name.lower(): value for name, value in response.headers}
        error = "redirects are not followed" if response.status in REDIRECTS else ""
        return Answer(response.status, error, self._retry_after_s(found.get(b"retry-after")))

    def _retry_after_s(self, value: bytes | None) -> float | None:
        """What a receiver asks for, in seconds or as a date; None if it cannot be understood."""
        text = (value or b"").decode("latin-1").strip()
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        # A date that names no zone is one of UTC.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        now = datetime.fromtimestamp(self._clock(), UTC)
        return max(0.0, (at - now).total_seconds())


def _plain(error: Exception) -> str:
    """What the operating system or TLS said; never what the receiver sent."""
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
