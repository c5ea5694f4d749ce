"""What `markup` promises: no text becomes markup, names break between their parts."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.web.markup import moment, name, size, span, text


@given(st.text())
def test_text(value: str) -> None:
    """Any text is shown as it is, and is no markup."""
    assert html.unescape(text(value)) == html.unescape(html.escape(value))
    assert not re.search("[<>\"']", text(value))


@given(st.text(max_size=500))
def test_name(value: str) -> None:
    """Any name is shown as it is, with nothing in it but places to break."""
    inside = name(value).removeprefix("<code>").removesuffix("</code>")
    assert inside.replace("<wbr>", "") == html.escape(value)


def test_where_a_name_breaks() -> None:
    """A name breaks behind what parts it, and nowhere in a word."""
    shown = name("ghcr.io/mieweb/base:v1.2")
    assert shown == "<code>ghcr.<wbr>io/<wbr>mieweb/<wbr>base:<wbr>v1.<wbr>2</code>"


def test_bounds() -> None:
    """What is long is cut, and a text says so."""
    assert text("x" * 50, 10) == "x" * 9 + "…"
    assert len(name("x" * 5000)) < 700


def test_moment() -> None:
    """A moment is in UTC for who has no script, and whole for the script."""
    at = datetime(2026, 11, 26, 23, 55, 3, tzinfo=UTC)
    assert moment(at) == '<time datetime="2026-11-26T23:55:03Z">2026-11-26 23:55 UTC</time>'
    assert 'data-kind="age"' in moment(at, "age")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0.0 s"),
        (0.24, "0.2 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3600 + 120, "1 h 2 min"),
        (86400 * 3 + 7200 + 60, "3 d 2 h"),
        (86400 + 60, "1 d"),
    ],
)
def test_span(seconds: float, shown: str) -> None:
    """A span is told in its two largest units."""
    assert span(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (48_211_930, "48.2 MB"),
        (402_000_000, "402 MB"),
        (2.5e15, "2.5 PB"),
        (4e18, "4000 PB"),
    ],
)
def test_size(number: float, shown: str) -> None:
    """Bytes are told in decimal units, with three digits at most."""
    assert size(number) == shown
