"""Images of a few kilobytes that ask for all memory, each converted in a process of its own.

    python -m tests.convert.hungry CASE [MIB]

Prints one line of JSON: how it ended, the message, the peak of the process in MiB, by how much
the conversion raised it, and the seconds.  The conversion runs with syncd's default bounds,
or with MIB as `limits.memory`; the number of members is lowered with it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from syncd.convert import Options, ScratchSpace, convert
from syncd.errors import SyncdError
from syncd.limits import Limits
from syncd.oci import open_image
from syncd.tar import FILE, Member, encode_header
from tests.archives import END
from tests.images import Content, describe, described, digest, write_layout
from tests.memory import Growth, peak

MIB = 1 << 20


def empty(name: bytes, number: int, **more: object) -> bytes:
    """Return the header of an empty file; no two have one time."""
    return encode_header(Member(name, FILE, 0o644, 0, 0, number * 10**9, **more))  # type: ignore[arg-type]


def headers(make: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    """Yield an archive of so many members, a few at a time."""
    for begin in range(0, count, 1000):
        yield b"".join(make(number) for number in range(begin, min(count, begin + 1000)))
    yield END


def implied(scale: float) -> list[Iterator[bytes]]:
    """1,000 members, each 1,990 folders deep: the folders are only implied."""
    below = b"/a" * 1990
    return [headers(lambda number: empty(b"%03d" % number + below, number), int(1000 * scale))]


def files(scale: float) -> list[Iterator[bytes]]:
    """1,000,000 empty files."""
    return [headers(lambda number: empty(b"%07d" % number, number), int(1_000_000 * scale))]


def records(scale: float) -> list[Iterator[bytes]]:
    """700,000 members with a PAX header each."""

    def make(number: int) -> bytes:
        return empty(b"%07d" % number, number, xattrs={b"user.n": b"%07d" % number})

    return [headers(make, int(700_000 * scale))]


def windows(scale: float) -> list[Iterator[bytes]]:
    """Four layers of zeros, whose zstd windows are 128 MiB each."""
    zeros, size = bytes(MIB), int(160 * scale)
    head = encode_header(Member(b"zeros", FILE, 0o644, 0, 0, 0, size=size * MIB))
    return [
        iter([empty(b"%d" % number, number) + head, *[zeros] * size, END]) for number in range(4)
    ]


CASES = {"implied": implied, "files": files, "records": records, "windows": windows}
"""The images, by name."""


def build(case: str, scale: float, folder: Path) -> None:
    """Write the image of a case as a layout; no archive is ever whole in memory."""
    blobs: dict[str, bytes] = {}
    layers, diff_ids = [], []
    for parts in CASES[case](scale):
        parameters = zstandard.ZstdCompressionParameters.from_level(
            1, window_log=27 if case == "windows" else 20
        )
        engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        plain, stored = hashlib.sha256(), b""
        for part in parts:
            plain.update(part)
            stored += engine.compress(part)
        stored += engine.flush()
        layers.append(describe("application/vnd.oci.image.layer.v1.tar+zstd", stored))
        blobs[digest(stored)] = stored
        diff_ids.append(f"sha256:{plain.hexdigest()}")
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    content = described(config, layers)
    write_layout(folder, {"latest": Content(content.descriptor, content.blobs | blobs)})


def run(folder: Path, memory: int) -> dict[str, object]:
    """Convert the image in a folder; return what is printed."""
    opened = open_image(f"oci:{folder / 'image'}:latest")
    growth = Growth()
    began = time.monotonic()
    options = Options(ScratchSpace(folder), limits=Limits(memory=memory * MIB), earlier=())
    try:
        convert(opened, folder / "template", options)
        end, message = "done", ""
    except SyncdError as exc:
        end, message = type(exc).__name__, str(exc)
    return {
        "end": end,
        "message": message,
        "peak": peak() // MIB,
        "grown": growth.now() // MIB,
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        # A process that builds has a peak of its own.
        code = "import sys; from pathlib import Path; from tests.convert.hungry import build; "
        code += "build(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))"
        default = Limits().memory.maximum // MIB
        memory = int(sys.argv[2]) if len(sys.argv) > 2 else default
        given = sys.argv[1], str(memory / default), place / "image"
        subprocess.run([sys.executable, "-c", code, *given], check=True)
        print(json.dumps(run(place, memory)))
