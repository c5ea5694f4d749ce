"""What is a mirror's URL, and where a repository lies there."""

from __future__ import annotations

import pytest

from syncd.errors import InvalidReferenceError
from syncd.oci import MirrorLocation, Reference

DEBIAN = Reference.parse("debian")


@pytest.mark.parametrize(
    ("url", "location", "place"),
    [
        ("https://zot.test:5000", MirrorLocation("zot.test:5000"), "zot.test:5000/library/debian"),
        ("https://zot.test/", MirrorLocation("zot.test"), "zot.test/library/debian"),
        ("https://Zot.test", MirrorLocation("zot.test"), "zot.test/library/debian"),
        ("http://[::1]:5000", MirrorLocation("[::1]:5000", "", True), "[::1]:5000/library/debian"),
        ("http://localhost", MirrorLocation("localhost", "", True), "localhost/library/debian"),
        (
            "https://harbor.test/proxy/hub/",
            MirrorLocation("harbor.test", "proxy/hub"),
            "harbor.test/proxy/hub/library/debian",
        ),
    ],
)
def test_location(url: str, location: MirrorLocation, place: str) -> None:
    """A mirror is a host, and perhaps a folder there, before the names of repositories."""
    assert MirrorLocation.parse(url) == location
    assert str(location.reference(DEBIAN)) == place
    assert MirrorLocation.parse(str(location)) == location


@pytest.mark.parametrize(
    "url",
    [
        "zot.test:5000",
        "http://Zot",
        "ftp://zot.test",
        "https://",
        "https://user:secret@zot.test",
        "https://zot.test?a=b",
        "https://zot.test/a#b",
        "https://zot.test/Upper",
        "https://zot.test/a//b",
        "https://zot.test/a:tag",
        "https://zot.test/a@sha256:" + "0" * 64,
        "https://zot.test:port",
    ],
)
def test_no_location(url: str) -> None:
    """What is no such URL is refused with how to write one, and without what may be a password."""
    with pytest.raises(InvalidReferenceError) as refused:
        MirrorLocation.parse(url)
    assert "is no mirror's URL" in str(refused.value)
    assert "write https://HOST" in refused.value.hint
    assert "secret" not in str(refused.value)


def test_too_long() -> None:
    """A name that is too long together with the folder is at no mirror."""
    location = MirrorLocation.parse("https://zot.test/" + "a" * 200)
    with pytest.raises(InvalidReferenceError):
        location.reference(Reference.parse("ghcr.io/" + "b" * 200))
