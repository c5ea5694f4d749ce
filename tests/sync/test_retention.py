"""What `sync.retention` promises: the newest versions stay, the last good one always."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from syncd.formats import Format
from syncd.oci.reference import Digest, Platform, Reference
from syncd.sync.retention import surplus
from syncd.sync.template import Template

CONFIG, MANIFEST, TOP = (Digest("sha256", char * 64) for char in "abc")
AMD64 = Platform("linux", "amd64")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE = Template(
    name="",
    target="t",
    reference=Reference.parse("a.b/c:d"),
    format=Format.OCI,
    platform=AMD64,
    digest=TOP,
    manifest_digest=MANIFEST,
    config_digest=CONFIG,
    diff_ids=(),
    file_digest=TOP,
    size=1,
    created=NOW,
    volumes=(),
    syncd_version="0",
)


@pytest.mark.parametrize(
    ("names", "keep", "pinned", "gone"),
    [
        ("", 2, "", ""),
        ("a", 1, "", ""),
        ("abc", 3, "", ""),
        ("abc", 2, "", "a"),
        ("abcd", 1, "", "abc"),
        ("abcd", 0, "", "abc"),
        ("abcd", -5, "", "abc"),
        ("abcd", 1, "a", "bc"),
        ("abcd", 2, "d", "ab"),
        ("abcd", 1, "abcd", ""),
    ],
)
def test_surplus(names: str, keep: int, pinned: str, gone: str) -> None:
    """The newest stay, the last good one always, and pinned ones too, whatever their times say."""
    for step in (1, 0, -2):
        recorded = [
            replace(ONE, name=name, created=NOW + step * timedelta(days=i), pinned=name in pinned)
            for i, name in enumerate(names)
        ]
        assert "".join(version.name for version in surplus(recorded[::-1], keep)) == gone
