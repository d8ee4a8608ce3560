from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synapse.domain.webhook_url import Allowed, address_refusal, refusal_of_any, url_of

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
GLOBAL_V6 = st.integers(2**125, 2**126 - 1).map(ipaddress.IPv6Address)

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "128.0.0.1",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_nothing_is_sent_to_an_address_that_is_not_public(address: str) -> None:
    refusal = address_refusal(ipaddress.ip_address(address))

    assert refusal is not None and "public" in refusal


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_may_be_sent_to(address: str) -> None:
    assert address_refusal(ipaddress.ip_address(address)) is None


@given(V4)
@example(ipaddress.IPv4Address("169.254.169.254"))
def test_no_address_of_ipv4_is_taken_for_public_that_python_knows_to_be_otherwise(
    address: ipaddress.IPv4Address,
) -> None:
    if address_refusal(address) is None:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@given(st.one_of(V6, GLOBAL_V6))
def test_no_address_of_ipv6_is_taken_for_public_that_python_knows_to_be_otherwise(
    address: ipaddress.IPv6Address,
) -> None:
    nat64 = ipaddress.IPv6Network("64:ff9b::/96")
    if address_refusal(address) is None and address not in nat64:
        assert address.is_global
        assert not address.is_multicast
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@given(V4)
@example(ipaddress.IPv4Address("127.0.0.1"))
def test_an_address_of_ipv4_in_any_disguise_is_judged_no_milder_than_itself(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    nat64 = ipaddress.IPv6Address((0x64_FF9B << 96) | number)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    compatible = ipaddress.IPv6Address(number)
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))

    assert (address_refusal(nat64) is None) == (address_refusal(address) is None)
    assert all(address_refusal(each) is not None for each in (mapped, compatible, sixtofour))


@given(st.lists(st.sampled_from(PUBLIC), max_size=4), st.sampled_from(PRIVATE), st.integers(0, 4))
def test_one_address_that_is_not_public_spoils_all(
    others: list[str], private: str, place: int
) -> None:
    assert refusal_of_any([*others[:place], private, *others[place:]]) is not None
    assert (refusal_of_any(others) is None) == bool(others)


REFUSED = [
    "",
    "x",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "//example.com/",
    "https:///path",
    "https://",
    "https://localhost/",
    "https://intranet/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.0x1/",
    "https://example.0x1/",
    "https://[::1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[fe80::1%25eth0]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://@example.com/",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:x/",
    "https://example.com/#part",
    "https://example.com/a b",
    "https://example.com/\r\nX: y",
    "https://example.com/ä",
    "https://example.com\\@127.0.0.1/",
    "https://exa mple.com/",
    "https://example..com/",
    "https://-example.com/",
    "https://exam%70le.com/",
    "https://faß.de/",
    "https://[v1.a]/",
    "https://example.com?x y",
    "https://example.com?ä",
    " https://example.com/",
    "https://exa\tmple.com/",
    "https://example.com/\x7f",
    "https://example.com/\ud800",
    "https://\ud800.com/",
    "https://example.com:٤٤٣/",
    "https://١٢٧.0.0.1/",
    "https://1。1。1。1/",
    "https://example.com/" + "a" * 2048,
    "https://" + "a" * 64 + ".com/",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_url_to_nowhere_public_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|must)"):
        url_of(text)


@pytest.mark.parametrize(
    ("text", "sent", "host", "port"),
    [
        ("https://example.com", "https://example.com/", "example.com", 443),
        ("https://Example.COM/A?b=c", "https://example.com/A?b=c", "example.com", 443),
        ("https://example.com:8443/x", "https://example.com:8443/x", "example.com", 8443),
        ("https://example.com.:443/x", "https://example.com:443/x", "example.com", 443),
        (
            "https://bücher.de/x",
            "https://xn--bcher-kva.de/x",
            "xn--bcher-kva.de",
            443,
        ),
        ("https://8.8.8.8/x", "https://8.8.8.8/x", "8.8.8.8", 443),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/", "2606:4700::1111", 443),
    ],
)
def test_a_url_to_a_public_host_is_taken(text: str, sent: str, host: str, port: int) -> None:
    url = url_of(text)

    assert (url.text, url.host, url.port, url.is_allowed) == (sent, host, port, False)


ANY = st.text(st.characters(exclude_categories=()), max_size=60)


@given(ANY, ANY)
def test_whatever_is_given_it_is_a_url_or_a_reason(host: str, rest: str) -> None:
    for text in (host, f"https://{host}/{rest}", f"https://{host}"):
        try:
            url = url_of(text)
        except ValueError as error:
            assert str(error)
        else:
            assert url.text.isascii() and url.text.startswith("https://")
            assert url_of(url.text) == url


def test_an_operator_allows_a_host_and_its_port_and_nothing_else() -> None:
    allowed = Allowed.of(" 127.0.0.1:9000 ,[::1]:9001,hooks.internal:80")

    assert url_of("http://127.0.0.1:9000/x", allowed).is_allowed
    assert url_of("http://[::1]:9001/x", allowed).is_allowed
    assert url_of("http://hooks.internal/x", allowed).is_allowed
    for other in ("http://127.0.0.1:9001/", "http://127.0.0.2:9000/", "http://hooks.internal:81/"):
        with pytest.raises(ValueError, match="https"):
            url_of(other, allowed)
    assert not url_of("https://hooks.internal/", allowed).is_allowed


def test_nothing_is_allowed_unless_it_is_said() -> None:
    assert Allowed.of("").places == frozenset()


@pytest.mark.parametrize("text", ["127.0.0.1", "x:", ":80", "x:0", "x:70000", "x:y"])
def test_an_allowed_place_without_a_port_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Allowed.of(text)
