"""What `progress` promises: what is heard is passed on, and work can be ended."""

from __future__ import annotations

import threading
import time

import pytest

from syncd.errors import StoppedError
from syncd.progress import Advance, Silence, Stoppable


class Heard:
    """A progress that remembers what it hears."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str, int | None]] = []
        self.bytes: list[int] = []

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Remember a step."""
        self.steps.append((step, subject, total))
        return self.bytes.append


def test_silence() -> None:
    """Nobody watching is no hindrance."""
    Silence().begin("layer", "x", None)(5)


def test_passes_on() -> None:
    """What a stoppable progress hears is passed on."""
    heard = Heard()
    advance = Stoppable(heard, threading.Event()).begin("layer", "sha256:x", 10)
    advance(3)
    advance(7)
    assert (heard.steps, heard.bytes) == ([("layer", "sha256:x", 10)], [3, 7])


def test_stops_at_the_next_bytes() -> None:
    """Once the event is set, the work ends when it tells of bytes; they are not counted."""
    heard, stopping = Heard(), threading.Event()
    advance = Stoppable(heard, stopping).begin("layer", "x", None)
    advance(1)
    stopping.set()
    with pytest.raises(StoppedError, match="resumed at the next start") as caught:
        advance(1)
    assert caught.value.temporary
    assert heard.bytes == [1]


def test_pause() -> None:
    """A pause takes its time, or ends with the work."""
    stopping = threading.Event()
    progress = Stoppable(Silence(), stopping)
    begun = time.monotonic()
    progress.pause(0.01)
    assert time.monotonic() - begun >= 0.01
    threading.Timer(0.01, stopping.set).start()
    with pytest.raises(StoppedError):
        progress.pause(60)
    assert time.monotonic() - begun < 30
