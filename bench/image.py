"""The images that are measured: a real Debian root file system cut into gzip layers.

`stack` makes the image, of as many layers as are wanted; `rebuilt` is the same one after a weekly
rebuild (every layer digest new, 2 % of the files changed, and the times of their folders).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import posixpath
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from zlib import crc32

from tests import archives, images

SIZE = 550 << 20
LAYERS = 6


def stack(root: Path, size: int = SIZE, layers: int = LAYERS) -> list[images.Layer]:
    """Cut a root file system's tar into `layers` of equal size, `size` bytes together."""
    return _compressed(_cut(root, size, layers, changed=False))


def rebuilt(root: Path, size: int = SIZE, layers: int = LAYERS) -> list[images.Layer]:
    """Cut the same with 2 % of the files changed, one in each layer at least."""
    return _compressed(_cut(root, size, layers, changed=True))


def small_layer() -> images.Layer:
    """Return a layer of a few files, a megabyte together."""
    noise = random.Random(7)
    members = []
    for number in range(10):
        member = tarfile.TarInfo(f"opt/app/{number}")
        member.size = 100_000
        members.append((member, noise.randbytes(member.size)))
    return images.layer_of(_tar(members))


def large_layout(folder: Path, size: int) -> Path:
    """Write an OCI layout of one gzip layer of `size` bytes in ten files, never held in memory.

    It is made of equal gzip members (RFC 1952, section 2.2), each a MiB of a pattern.
    """
    chunk = random.Random(3).randbytes(8 << 10) * 128
    stored_chunk = gzip.compress(chunk, 1, mtime=0)
    growing = folder / "growing"
    folder.mkdir()
    plain, blob = hashlib.sha256(), hashlib.sha256()
    with growing.open("wb") as file:

        def put(content: bytes, stored: bytes | None = None) -> None:
            stored = stored or gzip.compress(content, 1, mtime=0)
            plain.update(content)
            blob.update(stored)
            file.write(stored)

        for nth in range(10):
            put(archives.member(f"large/{nth}", b"0", size=size // 10 // len(chunk) * len(chunk)))
            for _ in range(size // 10 // len(chunk)):
                put(chunk, stored_chunk)
        put(archives.END)
        length = file.tell()
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{blob.hexdigest()}",
        "size": length,
    }
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
    }
    images.write_layout(folder, {"": images.described(config, [layer])})
    growing.rename(folder / "blobs" / "sha256" / blob.hexdigest())
    return folder


def _cut(root: Path, size: int, layers: int, *, changed: bool) -> Iterator[bytes]:
    """Yield the plain tars, one a layer."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    held = done = 0
    with tarfile.open(root) as source:
        folders = {posixpath.dirname(one.name) for one in source if _is_changed(one)}
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            data = content.read() if content else b""
            first = data and not held
            if changed and (first or _is_changed(member) or member.name in folders):
                member.mtime += 7 * 86400
                data = bytes(reversed(data[:64])) + data[64:]
            members.append((member, data))
            held += len(data)
            if held > size // layers:
                yield _tar(members)
                done, held, members = done + held, 0, []
            if done + held > size:
                break
    yield _tar(members)


def _is_changed(member: tarfile.TarInfo) -> bool:
    """Choose 2 % of the files, always the same."""
    return member.isreg() and crc32(member.name.encode()) % 50 == 0


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _compressed(tars: Iterator[bytes]) -> list[images.Layer]:
    with ProcessPoolExecutor() as pool:
        plain = list(tars)
        stored = pool.map(_gzip, plain)
        return [images.Layer(s, p, "gzip") for s, p in zip(stored, plain, strict=True)]


def _gzip(plain: bytes) -> bytes:
    return gzip.compress(plain, 6, mtime=0)
