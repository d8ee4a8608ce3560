"""Where webhooks may be sent: https to public addresses, and what an operator allows besides.

A URL is judged twice: its text when it is given (`url_of`), and each address that its name
resolves to when something is sent there (`address_refusal`), because a name may resolve to
anything, and to something else each time.

Sources: IANA's registries of special-purpose addresses (RFC 6890 and its updates), RFC 6052 for
addresses of IPv4 inside IPv6.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

MAX_URL_LENGTH = 2048
PORTS = frozenset({443, 8443})
DEFAULT_PORTS = {"https": 443, "http": 80}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; some clouds' metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's own, from inside it
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out to be reached from everywhere: loopback, ULA (fc00::/7), link-local,
multicast and addresses that hold one of IPv4 (::/96, ::ffff:0:0/96) lie outside."""

_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an address of IPv4 in disguise
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A URL that may be asked for. `host` is in ASCII, without brackets; `text` is what is sent.

    `is_allowed` says that an operator allows this very host and port: its addresses are not judged.
    """

    text: str = field(repr=False)
    scheme: str
    host: str
    port: int
    is_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts with their ports that may be sent to although they are not public; mostly none."""

    places: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def of(cls, text: str) -> Allowed:
        """What `host:port,host:port` names; an address of IPv6 stands in brackets.

        Raises:
            ValueError: an entry is no host and port.
        """
        places = set()
        for entry in filter(None, (each.strip() for each in text.split(","))):
            host, colon, port = entry.rpartition(":")
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise ValueError(f"{entry!r} is no host:port")
            places.add((host.strip("[]").lower(), int(port)))
        return cls(frozenset(places))


NONE_ALLOWED = Allowed()


def address_refusal(address: Address) -> str | None:
    """Why nothing is sent to an address; None if it is a public one."""
    if isinstance(address, ipaddress.IPv4Address):
        return _refused_in(address, _NOT_PUBLIC_V4)
    if address.scope_id is None and address in _NAT64:
        # What a network without IPv4 makes of the public addresses of IPv4, and of the others.
        return address_refusal(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    if address.scope_id is not None or address not in _GLOBAL_V6:
        return f"{address} is no public address"
    return _refused_in(address, _NOT_PUBLIC_V6)


def refusal_of_any(addresses: Iterable[str]) -> str | None:
    """Why nothing is sent to a host of these addresses: one that is not public is enough."""
    found = [ipaddress.ip_address(each) for each in addresses]
    if not found:
        return "the host has no address"
    return next(filter(None, map(address_refusal, found)), None)


def url_of(text: str, allowed: Allowed = NONE_ALLOWED) -> WebhookUrl:
    """The URL of a text.

    Raises:
        ValueError: nothing may be sent there; the message says why.
    """
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"must be at most {MAX_URL_LENGTH} characters")
    # Parsers drop some of these, each others.
    if _UNPRINTABLE.search(text):
        raise ValueError("must have no spaces, control characters or backslashes")
    try:
        parts = urlsplit(text)
        given_port = parts.port
    except ValueError as error:
        raise ValueError("is no URL") from error
    scheme = parts.scheme
    if scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with https://")
    host = _host(parts)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise ValueError("must be percent-encoded ASCII after the host")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user name or a password")
    if parts.fragment:
        raise ValueError("must not have a fragment")
    port = DEFAULT_PORTS[scheme] if given_port is None else given_port
    is_allowed = (host, port) in allowed.places
    if not is_allowed:
        _require_public(scheme, host, port)
    shown = f"[{host}]" if ":" in host else host
    place = shown if given_port is None else f"{shown}:{port}"
    return WebhookUrl(f"{scheme}://{place}{target}", scheme, host, port, is_allowed)


def _require_public(scheme: str, host: str, port: int) -> None:
    if scheme != "https":
        raise ValueError("must begin with https://")
    if port not in PORTS:
        raise ValueError(f"must use port {' or '.join(str(each) for each in sorted(PORTS))}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        _require_name(host)
        return
    refusal = address_refusal(address)
    if refusal is not None:
        raise ValueError(f"must be a public address: {refusal}")


def _require_name(host: str) -> None:
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("has a malformed host name")
    # Resolvers read these as addresses of IPv4, each in its own way: 127.1, 0x7f000001, 2130706433.
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("has a malformed address as its host")
    if len(labels) == 1:
        raise ValueError("must name a public host, with its domain")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise ValueError("has no host")
    if "%" in host or ("[" in parts.netloc and ":" not in host):
        raise ValueError("has a malformed host name")
    if host.isascii():
        return host
    try:
        encoded = host.encode("idna").decode()
        known = encoded.encode().decode("idna")
    except UnicodeError as error:
        raise ValueError("has a malformed host name") from error
    # Names that the two standards for them (of 2003 and 2008) understand differently, such as ß,
    # may belong to different owners.
    if known != host:
        raise ValueError("must give its host in the ASCII form (xn--…)")
    return encoded


def _refused_in(
    address: Address, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> str | None:
    if any(address in network for network in networks):
        return f"{address} is no public address"
    return None
