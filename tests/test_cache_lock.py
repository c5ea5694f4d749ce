"""What `e2e.command.making` promises: what the end-to-end tests keep is made by one at a time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import command


def test_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some that want the same file at a time one makes it, and the others have it whole."""
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    made = tmp_path / "cache" / "root.tar"
    makers: list[int] = []

    def make(nth: int) -> str:
        with command.making(made) as missing:
            if missing:
                makers.append(nth)
                time.sleep(0.1)
                made.write_text("whole")
        return made.read_text()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(make, range(4))) == ["whole"] * 4
    assert len(makers) == 1


def test_failed_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails to make a file leaves it to the next one."""
    monkeypatch.setattr(command, "CACHE", tmp_path)
    with pytest.raises(OSError, match="full"), command.making(tmp_path / "root.tar"):
        raise OSError("the disk is full")
    with command.making(tmp_path / "root.tar") as missing:
        assert missing
