"""What `web.clients` promises: the address that a trusted proxy saw, and nobody's invention."""

from __future__ import annotations

import time

import pytest

from syncd.web.clients import client_of

PROXY = ("127.0.0.1",)
TWO = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "client"),
    [
        pytest.param("203.0.113.9", ["1.1.1.1"], (), "203.0.113.9", id="no proxy is known"),
        pytest.param("203.0.113.9", ["1.1.1.1"], PROXY, "203.0.113.9", id="a stranger's header"),
        pytest.param("127.0.0.1", ["1.1.1.1"], (), "127.0.0.1", id="loopback is no proxy as such"),
        pytest.param("127.0.0.1", ["203.0.113.9"], PROXY, "203.0.113.9", id="one proxy"),
        pytest.param("127.0.0.1", ["1.1.1.1, 203.0.113.9"], PROXY, "203.0.113.9", id="invented"),
        pytest.param("127.0.0.1", ["1.1.1.1", "203.0.113.9"], PROXY, "203.0.113.9", id="two lines"),
        pytest.param(
            "127.0.0.1", ["127.0.0.1, 203.0.113.9"], PROXY, "203.0.113.9", id="as loopback"
        ),
        pytest.param("127.0.0.1", ["1.1.1.1, 203.0.113.9, 10.1.2.3"], TWO, "203.0.113.9", id="two"),
        pytest.param("127.0.0.1", ["10.1.2.3"], TWO, "10.1.2.3", id="a proxy itself"),
        pytest.param("127.0.0.1", [], PROXY, "127.0.0.1", id="nothing forwarded"),
        pytest.param(None, ["203.0.113.9"], PROXY, "203.0.113.9", id="a Unix socket"),
        pytest.param(None, ["203.0.113.9"], (), "127.0.0.1", id="a Unix socket of no proxy"),
        pytest.param("::ffff:127.0.0.1", ["203.0.113.9"], PROXY, "203.0.113.9", id="mapped"),
        pytest.param("127.0.0.1", ["::ffff:203.0.113.9"], PROXY, "203.0.113.9", id="mapped client"),
        pytest.param("127.0.0.1", ["203.0.113.9:4711"], PROXY, "203.0.113.9", id="a port"),
        pytest.param(
            "127.0.0.1", ["[2001:db9::9]:4711"], PROXY, "2001:db9::9", id="a port of IPv6"
        ),
        pytest.param("127.0.0.1", ["2001:db9::9, 2001:db8::1"], TWO, "2001:db9::9", id="IPv6"),
        pytest.param("fe80::1%eth0", ["1.1.1.1"], PROXY, "fe80::1", id="a zone"),
        pytest.param("127.0.0.1", ["unknown"], PROXY, None, id="RFC 7239 words"),
        pytest.param("127.0.0.1", ["1.1.1.1, "], PROXY, None, id="an empty entry"),
        pytest.param("127.0.0.1", ["1.1.1.1, \xff"], PROXY, None, id="no text"),
        pytest.param("127.0.0.1", ["1.1.1.1," + "127.0.0.1," * 99], PROXY, None, id="very many"),
    ],
)
def test_client(
    peer: str | None, forwarded: list[str], proxies: tuple[str, ...], client: str | None
) -> None:
    """The client is the last address in the headers that is no trusted proxy's."""
    found = client_of(peer, forwarded, proxies)
    assert (None if found is None else str(found)) == client


def test_a_long_header_costs_nothing() -> None:
    """Of a header of a megabyte no more is cut up than the last entries, whoever sends it."""
    forwarded = ["," * (1 << 20)] * 60
    begun = time.process_time()
    for peer in ("203.0.113.9", "127.0.0.1"):
        for _ in range(100):
            client_of(peer, forwarded, PROXY)
    assert time.process_time() - begun < 1


def test_very_many_proxies() -> None:
    """However long the header is, a few of its last entries are looked at."""
    assert str(client_of("127.0.0.1", ["1.1.1.1" + ",127.0.0.1" * 99], PROXY)) == "127.0.0.1"
