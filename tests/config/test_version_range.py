"""Tests for `syncd.config.version_range`."""

from __future__ import annotations

import pytest

from syncd.config.version_range import VersionRange, version_of

VERSIONS = [
    "1.1.9", "1.2.0", "v1.2.3", "1.2.9", "1.3.0-rc.1", "1.3.0", "1.10.0", "2.0.0-rc.1", "2.0.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (">=1.2 <2", ["1.2.0", "v1.2.3", "1.2.9", "1.3.0", "1.10.0"]),
        (">=v1.2 <v2", ["1.2.0", "v1.2.3", "1.2.9", "1.3.0", "1.10.0"]),
        (">1.2 <=2", ["1.3.0", "1.10.0", "2.0.0"]),
        (">1.2.0 <=1.2", ["v1.2.3", "1.2.9"]),
        ("<=1.2.3", ["1.1.9", "1.2.0", "v1.2.3"]),
        ("<1.2.3", ["1.1.9", "1.2.0"]),
        ("1.2", ["1.2.0", "v1.2.3", "1.2.9"]),
        ("=1.2.3", ["v1.2.3"]),
        ("1", ["1.1.9", "1.2.0", "v1.2.3", "1.2.9", "1.3.0", "1.10.0"]),
        (">=1.3.0-rc.1 <2", ["1.3.0-rc.1", "1.3.0", "1.10.0"]),
        (">1.3.0-rc.1 <1.4", ["1.3.0"]),
        (">=1.10 <=2.0.0-rc.1", ["1.10.0", "2.0.0-rc.1"]),
        (">2", []),
    ],
)
def test_ranges(text: str, found: list[str]) -> None:
    """Every bound holds, short versions are meant as a whole, and prereleases have to be named."""
    versions = VersionRange.parse(text)
    inside = [tag for tag in VERSIONS if (version := version_of(tag)) and version in versions]
    assert inside == found
    assert str(versions) == text


@pytest.mark.parametrize(
    "tag", ["latest", "1", "1.2", "v1.2", "1.2.3.4", "01.2.3", "vv1.2.3", "1.2.3_x", "20.04.1"]
)
def test_no_versions(tag: str) -> None:
    """A tag of other than three numbers, or with a zero in front of one, is no version."""
    assert version_of(tag) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a range"),
        ("  ", "not a range"),
        (">= 1.2", "not a range"),
        ("^1.2", "not a range"),
        ("1.2 || 1.3", "not a range"),
        ("1.02", "not a range"),
        ("1.2.3.4", "not a range"),
        (">=1.2.3 " * 100, "not a range"),
        (">=1.2-rc.1", "three numbers"),
        (">=1.2.0-rc..1", "not a version"),
    ],
)
def test_faulty_ranges(text: str, said: str) -> None:
    """What is no range is refused with what to write."""
    with pytest.raises(ValueError, match=said):
        VersionRange.parse(text)
