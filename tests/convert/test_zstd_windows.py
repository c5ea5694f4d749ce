"""What `convert.zstd_windows` promises: the memory of a stream is known before it is read."""

from __future__ import annotations

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from syncd.convert.zstd_windows import Windows
from syncd.errors import ImageError, LimitError

BLOCKS = 256 << 10
TEXT = b"".join(b"%d" % number for number in range(30_000))


def frame(log: int, content: bytes = TEXT, **more: bool) -> bytes:
    """Return a frame whose window is of 2 ** log bytes."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, **more)
    engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return engine.compress(content) + engine.flush()


STREAMS = {
    "one": (frame(20), 1 << 20),
    "checksum": (frame(12, write_checksum=True) + frame(11), 1 << 12),
    "a later frame": (frame(12) + frame(22) + frame(13), 1 << 22),
    "one-shot": (zstandard.compress(bytes(5_000_000)), 1 << 21),
    "small": (zstandard.compress(b"x" * 100) + zstandard.compress(b"y" * 300), 300),
    "empty": (zstandard.compress(b""), 0),
    "skippable": (struct.pack("<II", 0x184D2A5F, 9) + bytes(9) + frame(14), 1 << 14),
    "empty skippable": (struct.pack("<II", 0x184D2A50, 0) + frame(14), 1 << 14),
    "long": (frame(27, bytes(1 << 20)), 1 << 27),
}


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", STREAMS)
def test_windows(name: str, step: int) -> None:
    """The largest window of all frames is held, and given back at the end."""
    stream, window = STREAMS[name]
    held: list[int] = []
    with Windows(held.append) as windows:
        for at in range(0, len(stream), step):
            windows.follow(stream[at : at + step])
        assert sum(held) == windows.held == window + BLOCKS
    assert sum(held) == 0


def test_refused_before_it_is_read() -> None:
    """Eighteen bytes are enough to be refused: no window is made."""

    def hold(amount: int) -> None:
        if amount > 1 << 26:
            raise LimitError("too much")

    with Windows(hold) as windows, pytest.raises(LimitError):
        windows.follow(frame(27)[:18])


@pytest.mark.parametrize("stream", [b"\x1f\x8b\x08\0", frame(12) + b"none"])
def test_no_stream(stream: bytes) -> None:
    """What is no frame is told, at the beginning and between frames."""
    with Windows() as windows, pytest.raises(ImageError, match="zstd stream is not valid"):
        windows.follow(stream)


def test_long_windows_take_turns() -> None:
    """Of the streams that share a turn one at a time has a long window, short ones any number."""
    turn = threading.Lock()
    with ThreadPoolExecutor(1) as threads:

        def second() -> None:
            with Windows(turn=turn) as windows:
                windows.follow(frame(25)[:18])

        with Windows(turn=turn) as first, Windows(turn=turn) as short:
            first.follow(frame(25)[:18])
            short.follow(frame(20)[:18])
            waits = threads.submit(second)
            with pytest.raises(TimeoutError):
                waits.result(0.05)
        waits.result(10)
