"""Names whose name servers do not answer hold up nobody but whoever gave them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address

import pytest

from synapse.adapters.web import lookups as limits
from synapse.adapters.web.lookups import PER_TENANT, Lookups, addresses_of
from synapse.adapters.web.sender import HttpSender
from synapse.domain.delivery import Answer
from synapse.domain.errors import Unavailable
from synapse.domain.webhook_url import Allowed, WebhookUrl, url_of
from tests.integration.webhooks.receiver import Receiver, receiver, status
from tests.patience import PATIENCE_S, until

HEADERS = {"webhook-id": "evt_1"}


class NameServers:
    """Answer for good.example; for all else only once they are up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.up = threading.Event()

    def ask(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host != "good.example":
            assert self.up.wait(PATIENCE_S)
            raise OSError("no answer")
        return ["127.0.0.1"]


@pytest.fixture
def servers() -> Iterator[NameServers]:
    made = NameServers()
    yield made
    made.up.set()


@pytest.fixture
async def where() -> AsyncIterator[Receiver]:
    async with receiver(status(200)) as it:
        yield it


def good(where: Receiver) -> WebhookUrl:
    place = f"good.example:{where.port}"
    return url_of(f"http://{place}/", Allowed.of(place))


def silent(number: int) -> WebhookUrl:
    return url_of(f"https://h{number}.silent.example/")


async def test_the_silent_names_of_one_tenant_do_not_hold_up_another(
    servers: NameServers, where: Receiver
) -> None:
    sender = HttpSender(
        time.time, lookups=Lookups(ask=servers.ask, patience_s=0.1), timeout_s=PATIENCE_S
    )
    posts = [asyncio.create_task(sender.post("evil", silent(n), HEADERS, "{}")) for n in range(200)]
    await until(lambda: len(servers.asked) == PER_TENANT)

    assert await sender.post("good", good(where), HEADERS, "{}") == Answer(200)

    servers.up.set()
    came = await asyncio.gather(*posts, return_exceptions=True)
    assert sum(isinstance(each, Answer) for each in came) >= PER_TENANT
    assert all(isinstance(each, Answer | Unavailable) for each in came)


async def test_an_attempt_whose_name_is_not_asked_for_is_not_begun(servers: NameServers) -> None:
    lookups = Lookups(ask=servers.ask, patience_s=0.1)
    # Long enough for each to have begun its lookup, also where others have the cores.
    sender = HttpSender(time.time, lookups=lookups, timeout_s=2.0)

    async with asyncio.TaskGroup() as group:
        posts = [
            group.create_task(sender.post("t", silent(n), HEADERS, "{}")) for n in range(PER_TENANT)
        ]
    assert {post.result() for post in posts} == {Answer(error="no answer within 2 s")}
    assert len(servers.asked) == PER_TENANT

    # The lookups go on although nobody waits for them any more.
    with pytest.raises(Unavailable):
        await sender.post("t", silent(99), HEADERS, "{}")
    assert len(servers.asked) == PER_TENANT


async def test_the_wait_for_a_lookup_is_not_the_receivers(
    servers: NameServers, where: Receiver
) -> None:
    lookups = Lookups(ask=servers.ask, patience_s=PATIENCE_S)
    held = [await lookups.begun("t", f"h{n}.silent.example", 443) for n in range(PER_TENANT)]
    sender = HttpSender(time.time, lookups=lookups, timeout_s=0.3)

    post = asyncio.create_task(sender.post("t", good(where), HEADERS, "{}"))
    await asyncio.sleep(0.5)
    servers.up.set()

    assert await post == Answer(200)
    assert all(
        isinstance(each, OSError) for each in await asyncio.gather(*held, return_exceptions=True)
    )


async def test_a_name_is_asked_for_once_at_a_time_however_many_wait_for_it(
    servers: NameServers,
) -> None:
    lookups = Lookups(ask=servers.ask, patience_s=0.1)

    first, *others = [await lookups.begun("t", "silent.example", 443) for _ in range(100)]
    first.cancel()
    servers.up.set()

    came = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(each, OSError) for each in came)
    assert servers.asked == ["silent.example"]
    with pytest.raises(OSError, match="no answer"):
        await (await lookups.begun("t", "silent.example", 443))
    assert servers.asked == ["silent.example"] * 2


async def test_there_is_an_end_to_the_lookups_of_all_tenants(
    servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOKUPS", 2)
    lookups = Lookups(ask=servers.ask, patience_s=0.1)
    for tenant in "ab":
        await lookups.begun(tenant, f"{tenant}.example", 443)

    with pytest.raises(Unavailable):
        await lookups.begun("c", "good.example", 443)
    servers.up.set()
    assert await (await lookups.begun("c", "good.example", 443)) == ["127.0.0.1"]


def test_the_system_resolves_names_to_addresses() -> None:
    assert [ip_address(each) for each in addresses_of("127.0.0.1", 80)] == [ip_address("127.0.0.1")]
