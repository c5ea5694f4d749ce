"""The images that are measured: a real Debian root file system cut into gzip layers.

`stack` makes the image; `rebuilt` is the same one after a weekly rebuild (every layer digest new,
2 % of the files changed), `topped` the same with a small layer more.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests import images

SIZE = 550 << 20
LAYERS = 6


def stack(root: Path, size: int = SIZE, layers: int = LAYERS) -> list[images.Layer]:
    """Cut a root file system's tar into `layers` of equal size, `size` bytes together."""
    return _compressed(_cut(root, size, layers, changed=0.0))


def rebuilt(root: Path, size: int = SIZE, layers: int = LAYERS) -> list[images.Layer]:
    """Cut the same, with 2 % of the files changed and every time stamp of a directory new."""
    return _compressed(_cut(root, size, layers, changed=0.02))


def small_layer() -> images.Layer:
    """Return a layer of a few files, a megabyte together."""
    noise = random.Random(7)
    members = {f"opt/app/{n}": noise.randbytes(100_000) for n in range(10)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return images.layer_of(out.getvalue())


def _cut(root: Path, size: int, layers: int, changed: float) -> Iterator[bytes]:
    """Yield the plain tars, one a layer."""
    chance = random.Random(1)
    with tarfile.open(root) as source:
        out = io.BytesIO()
        target = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)
        done = 0
        for member in source:
            if done + out.tell() > size:
                break
            content = source.extractfile(member) if member.isreg() else None
            data = content.read() if content else b""
            if changed and (member.isdir() or chance.random() < changed):
                member.mtime += 7 * 86400
                data = bytes(reversed(data[:64])) + data[64:]
            target.addfile(member, io.BytesIO(data))
            if out.tell() > size // layers:
                target.close()
                done += out.tell()
                yield out.getvalue()
                out = io.BytesIO()
                target = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)
        target.close()
        yield out.getvalue()


def _compressed(tars: Iterator[bytes]) -> list[images.Layer]:
    with ProcessPoolExecutor() as pool:
        plain = list(tars)
        stored = pool.map(_gzip, plain)
        return [images.Layer(s, p, "gzip") for s, p in zip(stored, plain, strict=True)]


def _gzip(plain: bytes) -> bytes:
    return gzip.compress(plain, 6, mtime=0)


def fingerprint(layers: list[images.Layer]) -> str:
    """Return one digest of all layers, to tell images apart."""
    return hashlib.sha256(b"".join(images.digest(one.stored).encode() for one in layers)).hexdigest()
