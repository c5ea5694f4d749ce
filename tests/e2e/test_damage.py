"""Ten thousand damaged images: none becomes a template unless its tree is exactly right.

Every damage is drawn from one seed and named by its number, so that a failure can be had again:
`SEED` and the number in the message are all it takes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.errors import SyncdError
from syncd.limits import Limits
from tests.archives import directory, file, hardlink, member, opaque, resealed, symlink, whiteout
from tests.images import Layer, image, index, layer, layer_of, write_layout
from tests.memory import Growth
from tests.templates import checked, convert_layout

SEED = 20_240_229
DAMAGES = 10_000
LIMITS = Limits(layers=10, entries=200, path=500, header=4096, metadata=20_000, unpacked=1 << 20)
GROWTH_MAX = 100 << 20
"""Kibibytes by which a process may grow that converts these images."""
COMPRESSIONS = ["", "gzip", "zstd"]
EACH = DAMAGES // 9 + 1

LOWER = (
    directory("etc", mtime=1_500_000_000_123_456_789),
    file("etc/hosts", b"127.0.0.1 localhost\n" * 60, xattrs={"user.note": b"\xff\0"}),
    hardlink("etc/hosts.link", "etc/hosts"),
    file("etc/" + "long" * 50, b"x" * 700, uid=1 << 31),
    symlink("lib", "usr/lib"),
    directory("usr/lib"),
    member("dev/null", b"3", device=(1, 3)),
    file("var/gone", b"gone"),
    file("var/large", b"a large file has frames of its own " * 2000),
)
UPPER = (whiteout("var/gone"), opaque("usr/lib"), file("lib/new", b"new" * 400), file("var/kept"))

Change = Callable[[random.Random, bytes], bytes]


def flip(draw: random.Random, content: bytes) -> bytes:
    """Turn one bit over."""
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(draw: random.Random, content: bytes) -> bytes:
    """Leave off the end."""
    return content[: draw.randrange(len(content))]


def drop(draw: random.Random, content: bytes) -> bytes:
    """Leave out some bytes in the middle."""
    at = draw.randrange(len(content))
    return content[:at] + content[at + draw.randint(1, 600) :]


def repeat(draw: random.Random, content: bytes) -> bytes:
    """Put some bytes in twice."""
    at = draw.randrange(len(content))
    return content[: at + draw.randint(1, 600)] + content[at:]


def scribble(draw: random.Random, content: bytes) -> bytes:
    """Write any bytes over some."""
    at, length = draw.randrange(len(content)), draw.randint(1, 40)
    return content[:at] + draw.randbytes(length) + content[at + length :]


CHANGES: list[Change] = [flip, flip, flip, cut, drop, repeat, scribble]


def converted(folder: Path, number: int) -> bytes | None:
    """Convert the layout in `folder`; return the template, or None where it was refused."""
    try:
        convert_layout(folder / "layout", folder, LIMITS)
    except SyncdError:
        assert list((folder / "out").iterdir()) == [], number
        return None
    finally:
        assert list((folder / "spool").iterdir()) == [], number
    template = folder / "out" / "template.tar.zst"
    content = template.read_bytes()
    template.unlink()
    return content


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Fail a test by which this process grew more than a conversion may."""
    growth = Growth()
    yield
    assert growth.now() < GROWTH_MAX


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_layout(compression: str, tmp_path: Path) -> None:
    """Whichever file of a layout is damaged, the template is exactly right or is not there."""
    layers = [layer(*members, compression=compression) for members in (LOWER, UPPER)]
    layout = write_layout(tmp_path / "layout", {"": index(image(*layers), attestation=True)})
    right = converted(tmp_path, 0)
    assert right
    draw = random.Random(f"{SEED} layout {compression}")
    files = sorted(path for path in layout.rglob("*") if path.is_file())
    refused = 0
    for number in range(EACH):
        path = draw.choice(files)
        content = path.read_bytes()
        path.write_bytes(draw.choice(CHANGES)(draw, content))
        result = converted(tmp_path, number)
        path.write_bytes(content)
        assert result in (None, right), number
        refused += result is None
    assert refused > EACH // 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_before_it_was_pushed(compression: str, tmp_path: Path) -> None:
    """A blob that its own digest vouches for is still held to the diff_id of its tar."""
    lower, upper = (layer(*members, compression=compression) for members in (LOWER, UPPER))
    write_layout(tmp_path / "layout", {"": image(lower, upper)})
    right = converted(tmp_path, 0)
    draw = random.Random(f"{SEED} blob {compression}")
    refused = 0
    for number in range(EACH):
        damaged = draw.choice(CHANGES)(draw, lower.stored)
        again = image(Layer(damaged, lower.plain, compression), upper)
        write_layout(tmp_path / "layout", {"": again})
        result = converted(tmp_path, number)
        shutil.rmtree(tmp_path / "layout")
        assert result in (None, right), number
        refused += result is None
    assert refused > EACH // 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_tar(compression: str, tmp_path: Path) -> None:
    """A tar that all digests vouch for is taken or refused, within the bounds, and never crashes.

    What is taken gives a template that others read.
    """
    lower, upper = (layer(*members, compression="") for members in (LOWER, UPPER))
    draw = random.Random(f"{SEED} tar {compression}")
    taken = 0
    for number in range(EACH):
        damaged = lower.plain
        for _ in range(draw.randint(1, 3)):
            damaged = draw.choice(CHANGES)(draw, damaged)
        damaged = resealed(damaged) if draw.random() < 0.8 else damaged
        again = image(layer_of(damaged, compression), upper)
        write_layout(tmp_path / "layout", {"": again})
        result = converted(tmp_path, number)
        shutil.rmtree(tmp_path / "layout")
        if result is None:
            continue
        taken += 1
        assert len(checked(result)) <= LIMITS.entries.maximum, number
    assert EACH // 20 < taken < EACH
