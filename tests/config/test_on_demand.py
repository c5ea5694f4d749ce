"""What `on_demand` promises: patterns mean references, whole, and no other."""

from __future__ import annotations

import time

import pytest

from syncd.config.on_demand import check_on_demand, meets
from syncd.oci.reference import Reference

DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("pattern", "meant", "not_meant"),
    [
        (
            "ghcr.io/owner/*",
            ["ghcr.io/owner/a", "ghcr.io/owner/a:1", "ghcr.io/owner/a" + DIGEST],
            ["ghcr.io/owner/a/b", "ghcr.io/owner2/a", "ghcr.io/x/owner/a", "eghcr.io/owner/a",
             "ghcr.io:443/owner/a", "evil.example/ghcr.io/owner/a"],
        ),
        ("ghcr.io/owner/**", ["ghcr.io/owner/a", "ghcr.io/owner/a/b:1"], ["ghcr.io/own/a"]),
        (
            "docker.io/library/debian:12*",
            ["debian:12", "debian:12.5", "docker.io/library/debian:12-slim"],
            ["debian", "debian:13", "debian:12" + DIGEST, "debian" + DIGEST, "debian2:12"],
        ),
        ("docker.io/library/debian:latest", ["debian"], ["debian:12", "debian" + DIGEST]),
        ("reg.lan:5000/a/b", ["reg.lan:5000/a/b:1"], ["reg.lan/a/b", "reg.lan:50001/a/b"]),
        ("[fd00::1]:5000/a/*", ["[fd00::1]:5000/a/b"], ["[fd00::1]/a/b"]),
        ("docker.io/**", ["debian", "docker.io/a/b:1"], ["a.b/c"]),
        ("*.lan:*/a/b", ["reg.lan:5000/a/b:1"], ["reg.lan/a/b"]),
        ("*/team/*", ["a.b/team/c", "x.lan:5000/team/c"], ["a.b/c/team/d", "a.b/team/c/d"]),
        ("**/*", ["a.b/c", "a.b/c/d/e"], []),
        ("a.b/x.y", ["a.b/x.y"], ["a.b/xzy", "a-b/x.y"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, meant: list[str], not_meant: list[str]) -> None:
    """A pattern means whole references; a tag in it means no digest, whose tag says nothing."""
    assert check_on_demand(pattern) == pattern
    for text in meant:
        assert meets(pattern, Reference.parse(text)), text
    for text in not_meant:
        assert not meets(pattern, Reference.parse(text)), text


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "**", "ghcr.io", "a b/c", "ghcr.io/***", "a.b/c@sha256:0", "https://a.b/c", "a.b/",
     "a.b//c", "re:.*", "a.b/c:", "a.b/C", "a.b/" + "c" * 500, "a.b/c\n"],
)  # fmt: skip
def test_no_patterns(pattern: str) -> None:
    """What is no pattern is refused when the configuration is read."""
    with pytest.raises(ValueError, match="write HOST/REPOSITORY"):
        check_on_demand(pattern)


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("docker.io/debian:12", "docker.io/library/debian"),
        ("docker.io/*", "docker.io/library/a"),
        ("owner/name", "docker.io/owner/name"),
        ("GHCR.io/owner/*", "ghcr.io/owner/a"),
    ],
)
def test_no_reference_is_like_this(pattern: str, written: str) -> None:
    """A pattern that no reference could meet is refused, with the way it is written."""
    with pytest.raises(ValueError, match=f"is written {written}$"):
        check_on_demand(pattern)


def test_time() -> None:
    """A pattern with many wildcards cannot hold up the daemon."""
    pattern = "a.b/" + "*a" * 200
    begun = time.process_time()
    assert not meets(pattern, Reference.parse("a.b/" + "a" * 199))
    assert time.process_time() - begun < 1
