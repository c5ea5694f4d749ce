"""What errors tell, and whether several of them together are worth a retry."""

from __future__ import annotations

import pytest

from syncd.errors import (
    ConnectionLostError,
    EndpointUnreachableError,
    PublishError,
    SyncdError,
    TargetUnavailableError,
    UntrustedCertificateError,
    joined,
)


def test_one_line() -> None:
    """A text that quotes an image stays on one line and sends a terminal no commands."""
    error = SyncdError("no layer a\nb", "see \x1b[2J")
    assert str(error) == "no layer a\\nb; see \\x1b[2J"


@pytest.mark.parametrize(
    ("errors", "temporary"),
    [
        ([TargetUnavailableError("a")], True),
        ([ConnectionLostError("a"), EndpointUnreachableError("b")], True),
        ([PublishError("a")], False),
        ([PublishError("a"), TargetUnavailableError("b")], False),
        ([TargetUnavailableError("a"), PublishError("b")], False),
        ([EndpointUnreachableError("a"), UntrustedCertificateError("b")], False),
    ],
)
def test_joined_temporary(errors: list[PublishError], temporary: bool) -> None:
    """Joined errors are temporary only if each part is temporary."""
    whole = joined(errors)
    assert whole.temporary is temporary
    assert type(whole) is (TargetUnavailableError if temporary else PublishError)


def test_joined_texts() -> None:
    """Joined errors tell each fault and each hint once, in the order of the errors."""
    whole = joined(
        [
            PublishError("a is full", "make room"),
            TargetUnavailableError("b is away"),
            PublishError("a is full", "make room"),
            PublishError("c refuses", "grant it"),
        ]
    )
    assert whole.what == "a is full; b is away; c refuses"
    assert whole.hint == "make room; grant it"
