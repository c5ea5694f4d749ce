"""What `paced_digest` promises: the right digest, and no more bytes a second than its rate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from syncd.files.paced import paced_digest

CONTENT = bytes(range(256)) * (9 << 12)  # more than two steps


@pytest.mark.parametrize("rate", [None, 1 << 40])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
def test_digest(tmp_path: Path, content: bytes, rate: int | None) -> None:
    """The digest is that of the whole file, paced or not."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert paced_digest(file, "sha256", rate) == hashlib.sha256(content).hexdigest()


def test_rate(tmp_path: Path) -> None:
    """The waits add up to the time that the bytes take at the rate."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    waits: list[float] = []
    paced_digest(file, "sha256", 1 << 20, waits.append)
    # Nobody really waits here, so each wait is for all bytes so far: 4, 8 and 9 MiB.
    assert waits == pytest.approx([4.0, 8.0, 9.0], abs=1.0)


def test_given_up(tmp_path: Path) -> None:
    """A wait that raises ends the read."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT)

    def stop(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        paced_digest(file, "sha256", None, stop)


def test_symlink(tmp_path: Path) -> None:
    """A symlink is not followed."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        paced_digest(tmp_path / "link", "sha256")
