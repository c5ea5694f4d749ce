"""What `oci.blob_reader` promises: the very bytes of a blob, through any number of streams."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from syncd.config.settings import RegistrySettings
from syncd.errors import (
    BrokenStreamError,
    NotFoundError,
    RegistryUnavailableError,
    StoppedError,
    StorageError,
    VerificationError,
)
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.blob_cache import BlobCache
from syncd.oci.blob_reader import BlobReader
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.source import open_image
from tests.archives import file
from tests.fakes.registry import Registry
from tests.images import describe, image, layer
from tests.oci.test_layout import CONTENT, TAR, descriptor, read_all


@pytest.mark.parametrize("step", [1 << 10, 1 << 20])
def test_right(step: int) -> None:
    """Promised bytes come through."""
    assert read_all(BlobReader(descriptor(), io.BytesIO(CONTENT)), step) == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1], "fewer"),
        (b"", "fewer"),
        (CONTENT + b"x", "more"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "other content"),
    ],
)
def test_wrong(content: bytes, message: str) -> None:
    """Too few, too many or other bytes are refused, before the end is told."""
    with pytest.raises(VerificationError, match=message):
        read_all(BlobReader(descriptor(), io.BytesIO(content)))


def test_no_more_than_promised_is_read() -> None:
    """A source without end is left after one byte too many."""
    source = io.BytesIO(CONTENT * 10)
    with pytest.raises(VerificationError, match="more"):
        BlobReader(descriptor(), source).read(1 << 20)
    assert source.tell() == len(CONTENT) + 1


def test_sha512() -> None:
    """A blob may be named by its SHA-512."""
    named = {
        **describe(TAR, CONTENT),
        "digest": f"sha512:{hashlib.sha512(CONTENT).hexdigest()}",
    }
    wanted = Descriptor.parse(named, "layer")
    assert read_all(BlobReader(wanted, io.BytesIO(CONTENT))) == CONTENT
    with pytest.raises(VerificationError):
        read_all(BlobReader(wanted, io.BytesIO(CONTENT[::-1])))


class Origin:
    """Gives streams of CONTENT, each of which breaks after so many bytes; the last is whole."""

    def __init__(self, *breaks_after: int | None) -> None:
        self.offsets: list[int] = []
        self.closed = 0
        self.waits: list[float] = []
        self._breaks_after = iter(breaks_after)

    def open_at(self, offset: int) -> Reader:
        self.offsets.append(offset)
        length = next(self._breaks_after, None)
        content = CONTENT[offset:] if length is None else CONTENT[offset : offset + length]
        return _Stream(self, content, breaks=length is not None)

    def fetch(self, _: Descriptor, offset: int) -> Reader:
        return self.open_at(offset)


class _Stream(io.BytesIO):
    def __init__(self, origin: Origin, content: bytes, *, breaks: bool) -> None:
        super().__init__(content)
        self._origin = origin
        self._breaks = breaks

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and self._breaks:
            raise BrokenStreamError("the line broke")
        return data

    def close(self) -> None:
        self._origin.closed += 1
        super().close()


@pytest.mark.parametrize("is_open", [False, True])
def test_resumes(is_open: bool) -> None:
    """A stream that breaks is closed, and replaced by one that begins where it broke."""
    origin = Origin(1000, 0, 5000)
    first = origin.open_at(0) if is_open else None
    reader = BlobReader(descriptor(), first, open_at=origin.open_at, pause=origin.waits.append)
    assert read_all(reader) == CONTENT
    assert origin.offsets == [0, 1000, 1000, 6000]
    assert origin.closed == len(origin.offsets)
    assert len(origin.waits) == 3


def test_waits_grow_until_there_is_progress() -> None:
    """Each failure in a row doubles the wait, and a byte makes the count begin anew."""
    origin = Origin(*[0] * (ATTEMPTS - 1), 1, *[0] * (ATTEMPTS - 2))
    reader = BlobReader(descriptor(), open_at=origin.open_at, pause=origin.waits.append)
    assert read_all(reader) == CONTENT
    failures = [*range(1, ATTEMPTS), *range(1, ATTEMPTS)]
    for failure, wait in zip(failures, origin.waits, strict=True):
        assert 0.125 * 2**failure <= wait <= 0.375 * 2**failure


def test_gives_up() -> None:
    """A blob that gets no further is given up with the place, the cause and what will happen."""
    origin = Origin(2000, *[0] * 50)
    reader = BlobReader(descriptor(), open_at=origin.open_at, pause=origin.waits.append)
    message = rf"{descriptor().digest} broke off 5 times at byte 2000: the line broke.*resumes it"
    with pytest.raises(RegistryUnavailableError, match=message) as told:
        read_all(reader)
    assert told.value.temporary
    assert not isinstance(told.value, BrokenStreamError)
    assert len(origin.offsets) == ATTEMPTS


def test_refusal_is_no_break() -> None:
    """When a stream cannot be opened again for another reason, that is the error, at once."""

    def refuse(_: int) -> Reader:
        raise NotFoundError("the registry does not have it any more")

    reader = BlobReader(descriptor(), Origin(10).open_at(0), open_at=refuse, pause=lambda _: None)
    with pytest.raises(NotFoundError):
        read_all(reader)


def test_stops_while_it_waits() -> None:
    """An error of the pause ends the reading: a daemon stops."""

    def stop(_: float) -> None:
        raise StoppedError("syncd is stopping")

    origin = Origin(10)
    with pytest.raises(StoppedError):
        read_all(BlobReader(descriptor(), open_at=origin.open_at, pause=stop))
    assert origin.offsets == [0]


def test_failing_disk() -> None:
    """A stream of this machine that cannot be read is a StorageError."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error"):
        BlobReader(descriptor(), Failing()).read(10)


def test_break_is_kept(tmp_path: Path) -> None:
    """What came before and after a break is kept once each, and verified as a whole."""
    cache = BlobCache(tmp_path)
    origin = Origin(1000, 500)
    reader = cache.reader(descriptor(), origin.fetch, origin.waits.append)
    assert read_all(reader) == CONTENT
    assert origin.offsets == [0, 1000, 1500]
    assert len(origin.waits) == 2
    (blob,) = tmp_path.glob("blobs/sha256/*")
    assert blob.read_bytes() == CONTENT


def test_evicted_while_it_is_read(tmp_path: Path) -> None:
    """A blob of the cache that is removed while it is read is read to its end."""
    cache = BlobCache(tmp_path)
    read_all(cache.reader(descriptor(), Origin().fetch))
    reader = cache.reader(descriptor(), Origin().fetch)
    reader.read(1000)
    (blob,) = tmp_path.glob("blobs/sha256/*")
    blob.unlink()
    assert len(read_all(reader)) == len(CONTENT) - 1000
    assert list(tmp_path.glob("blobs/sha256/*")) == []


def test_image_without_a_cache(registry: Registry) -> None:
    """A layer of an image that a person named resumes, too."""
    made = layer(file("a", CONTENT), compression="")
    registry.push("org/image", "latest", image(made))
    settings = RegistrySettings(host=registry.address, plain_http=True)
    opened = open_image(f"{registry.address}/org/image", access=lambda _: settings)
    registry.faults.break_after = [100_000]
    (only,) = opened.image.layers
    assert read_all(opened.open_layer(only.descriptor)) == made.stored
    assert registry.ranges[-1] == "bytes=100000-"
