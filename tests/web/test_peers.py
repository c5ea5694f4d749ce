"""What `web.peers` promises: what an address counts as, and a log that peers cannot fill."""

from __future__ import annotations

import pytest

from syncd.web.peers import LOOPBACK, Seldom, address_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", LOOPBACK),
        ("127.8.9.1", LOOPBACK),
        ("::1", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("", LOOPBACK),
        (None, LOOPBACK),
    ],
)
def test_address(peer: str | None, address: str) -> None:
    """A /64 of IPv6 is one address, and so is all of loopback, with Unix sockets."""
    assert address_of(peer) == address


def test_seldom() -> None:
    """The first ones of a minute pass; the next minute tells how many did not."""
    now = 100.0
    seldom = Seldom(2, lambda: now)
    assert [seldom() for _ in range(5)] == [0, 0, None, None, None]
    now += 59
    assert seldom() is None
    now += 1
    assert [seldom() for _ in range(3)] == [4, 0, None]
    now += 60
    assert seldom() == 1
