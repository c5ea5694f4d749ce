"""What cloning frames of an earlier template would gain, on a file system with reflinks.

    python -m bench.clone FOLDER

Frames begin at any byte, but a file system clones whole blocks, and only to a place that is as far
into a block as the source (copy_file_range(2), ioctl_ficlonerange(2)).  So three ways are compared
on a file of random bytes, each with the flush at its end: read, digest and write each frame, as
`syncd.convert.frame_store` does; digest it, and let the kernel copy it to where it falls; and clone
aligned blocks without a look at them, which no template allows.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

SIZE = 200 << 20
RUNS = 5
SHIFT = 100  # bytes by which a changed file before them moves the frames

Frames = list[tuple[int, int]]


def main(folder: Path) -> None:
    """Measure, print, and remove what was written."""
    source, target = folder / "clone-source", folder / "clone-target"
    source.write_bytes(random.randbytes(SIZE))
    times: dict[str, list[float]] = {}
    ways = {"read, digest, write": written, "digest, copied": copied, "aligned clones": cloned}
    for _ in range(RUNS):
        for name, way in ways.items():
            times.setdefault(name, []).append(seconds(way, source, target))
    least = statistics.median(times["read, digest, write"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:20} {median:.3f} s, ratio {median / least:.2f}")
    source.unlink()


def frames() -> Frames:
    """Return where frames lie, of the sizes that templates have."""
    found, at = Frames(), 0
    while at < SIZE:
        size = min(random.choice((30_011, 110_003, 900_007, 1_400_001)), SIZE - at)
        found.append((at, size))
        at += size
    return found


def seconds(way: Callable[[int, int, Frames], None], source: Path, target: Path) -> float:
    """Return how long a way takes, flush included."""
    places = frames()
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
    began = time.perf_counter()
    way(reading, writing, places)
    os.fsync(writing)
    taken = time.perf_counter() - began
    os.close(reading)
    os.close(writing)
    target.unlink()
    return taken


def written(source: int, target: int, places: Frames) -> None:
    """Read, digest and write each frame."""
    for at, size in places:
        content = os.pread(source, size, at)
        blake3(content).digest()
        os.pwrite(target, content, at + SHIFT)


def copied(source: int, target: int, places: Frames) -> None:
    """Read and digest each frame, and have the kernel copy it."""
    for at, size in places:
        blake3(os.pread(source, size, at)).digest()
        _copy(source, target, at, size, at + SHIFT)


def cloned(source: int, target: int, _: Frames) -> None:
    """Clone everything to the same place."""
    _copy(source, target, 0, SIZE, 0)


def _copy(source: int, target: int, at: int, size: int, to: int) -> None:
    while size:
        done = os.copy_file_range(source, target, size, at, to)
        at, to, size = at + done, to + done, size - done


if __name__ == "__main__":
    main(Path(sys.argv[1]))
