"""What `oci.blob_cache` promises: a cache that fills and heals itself."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import RegistryUnavailableError, StoppedError, StorageError, VerificationError
from syncd.oci import blob_cache
from syncd.oci.blob_cache import BlobCache
from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.manifest import Descriptor, Image, Reader
from syncd.oci.reference import Reference
from tests.archives import file
from tests.images import Content, digest, image, index, layer, write_layout
from tests.oci.test_layout import CONTENT, descriptor, read_all
from tests.templates import AMD64


@dataclass
class Origin:
    """Where blobs come from: `content`, until `breaks_at`; remembers from which offsets."""

    content: bytes = CONTENT
    breaks_at: int | None = None
    offsets: list[int] = field(default_factory=list)

    def fetch(self, wanted: Descriptor, offset: int) -> Reader:
        """Open the blob, as a registry does."""
        self.offsets.append(offset)
        if offset and offset >= len(self.content):
            raise AssertionError("nothing is left to ask for: a registry would answer 416")
        return _Breaking(self.content, offset, self.breaks_at)


class _Breaking(io.BytesIO):
    def __init__(self, content: bytes, offset: int, breaks_at: int | None) -> None:
        super().__init__(content if breaks_at is None else content[:breaks_at])
        self.seek(offset)
        self._broken = breaks_at is not None

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and self._broken:
            raise RegistryUnavailableError("the line broke")
        return data


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    """Make an empty cache."""
    return BlobCache(tmp_path / "cache")


def stored(cache: BlobCache) -> dict[str, bytes]:
    """Return the blobs of a cache, by hex digest."""
    return {path.name: path.read_bytes() for path in cache.folder.glob("blobs/*/*")}


def parts(cache: BlobCache) -> list[bytes]:
    """Return what half-fetched blobs hold."""
    return [path.read_bytes() for path in (cache.folder / ".ingest").iterdir()]


class TestCacheReading:
    """A blob read through the cache is fetched once, and kept only when it is right."""

    def test_once(self, cache: BlobCache) -> None:
        """The second reading comes from disk."""
        origin = Origin()
        for _ in range(2):
            assert read_all(cache.reader(descriptor(), origin.fetch)) == CONTENT
        assert origin.offsets == [0]
        assert (list(stored(cache).values()), parts(cache)) == ([CONTENT], [])

    def test_not_to_be_kept(self, cache: BlobCache) -> None:
        """A blob for which there is no room is verified like any other, and leaves nothing."""
        assert read_all(cache.reader(descriptor(), Origin().fetch, keep=False)) == CONTENT
        assert (stored(cache), parts(cache)) == ({}, [])
        with pytest.raises(VerificationError):
            read_all(cache.reader(descriptor(), Origin(CONTENT[::-1]).fetch, keep=False))
        read_all(cache.reader(descriptor(), Origin().fetch))
        origin = Origin()
        assert read_all(cache.reader(descriptor(), origin.fetch, keep=False)) == CONTENT
        assert origin.offsets == []

    def test_empty_blob(self, cache: BlobCache) -> None:
        """A blob of no bytes is kept like any other."""
        assert read_all(cache.reader(descriptor(b""), Origin(b"").fetch)) == b""
        assert list(stored(cache).values()) == [b""]

    def test_not_kept_before_its_end(self, cache: BlobCache) -> None:
        """While it is being read, or when it was left, a blob is not there."""
        reader = cache.reader(descriptor(), Origin().fetch)
        reader.read(1000)
        assert stored(cache) == {}
        reader.close()
        assert stored(cache) == {}
        assert parts(cache) == [CONTENT[:1000]]

    @pytest.mark.parametrize("breaks_at", [0, 1, 64 << 10, 100_000, len(CONTENT)])
    def test_resume(self, breaks_at: int, cache: BlobCache) -> None:
        """A fetch that broke off goes on where it stopped, and asks for nothing twice."""
        broken, whole = Origin(breaks_at=breaks_at), Origin()
        if breaks_at < len(CONTENT):
            with pytest.raises(RegistryUnavailableError):
                read_all(cache.reader(descriptor(), broken.fetch))
        else:
            reader = cache.reader(descriptor(), broken.fetch)
            assert reader.read(len(CONTENT)) == CONTENT
            reader.close()
        assert read_all(cache.reader(descriptor(), whole.fetch)) == CONTENT
        assert whole.offsets == ([breaks_at] if breaks_at < len(CONTENT) else [])
        assert (list(stored(cache).values()), parts(cache)) == ([CONTENT], [])

    @pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"x", b""], ids=len)
    def test_wrong_source(self, content: bytes, cache: BlobCache) -> None:
        """A source that serves other bytes leaves nothing to resume from."""
        with pytest.raises(VerificationError):
            read_all(cache.reader(descriptor(), Origin(content).fetch))
        assert stored(cache) == {}
        assert read_all(cache.reader(descriptor(), Origin().fetch)) == CONTENT

    @pytest.mark.parametrize("left", [b"other", CONTENT[::-1], CONTENT + b"too much"], ids=len)
    def test_wrong_part(self, left: bytes, cache: BlobCache) -> None:
        """A damaged part is found out, and forgotten."""
        (cache.folder / ".ingest" / descriptor().digest.encoded).write_bytes(left)
        with pytest.raises(VerificationError):
            read_all(cache.reader(descriptor(), Origin().fetch))
        assert read_all(cache.reader(descriptor(), Origin().fetch)) == CONTENT

    @pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"x", b""], ids=len)
    def test_blob_gone_bad(self, content: bytes, cache: BlobCache) -> None:
        """A cached blob that has gone bad is dropped, and fetched anew the next time."""
        origin = Origin()
        read_all(cache.reader(descriptor(), origin.fetch))
        (path,) = cache.folder.glob("blobs/*/*")
        path.write_bytes(content)
        with pytest.raises(VerificationError):
            read_all(cache.reader(descriptor(), origin.fetch))
        assert stored(cache) == {}
        assert read_all(cache.reader(descriptor(), origin.fetch)) == CONTENT
        assert origin.offsets == [0, 0]

    def test_second_reader_waits(self, cache: BlobCache) -> None:
        """Whoever asks for a blob that somebody fetches waits, and fetches nothing."""
        origin, second = Origin(), Origin()
        first = cache.reader(descriptor(), origin.fetch)
        first.read(1000)
        got: list[bytes] = []

        def follow() -> None:
            got.append(read_all(BlobCache(cache.folder).reader(descriptor(), second.fetch)))

        thread = threading.Thread(target=follow)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        read_all(first)
        thread.join(10)
        assert got == [CONTENT]
        assert second.offsets == []

    def test_waiting_for_somebody_slow(
        self, cache: BlobCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever waits for a reader that hardly gets on fetches the blob, and leaves the part."""
        monkeypatch.setattr(blob_cache, "_PATIENCE", 0.01)
        first, second = cache.reader(descriptor(), Origin().fetch), Origin()
        first.read(1000)
        assert read_all(cache.reader(descriptor(), second.fetch, time.sleep)) == CONTENT
        assert second.offsets == [0]
        assert len(read_all(first)) == len(CONTENT) - 1000
        assert stored(cache) != {}

    def test_waiting_ends(self, cache: BlobCache) -> None:
        """Whoever waits for a blob may give up; nothing of theirs stays open."""
        first = cache.reader(descriptor(), Origin().fetch)
        first.read(1000)
        before = len(list(Path("/proc/self/fd").iterdir()))

        def give_up(_: float) -> None:
            raise StoppedError("syncd is stopping")

        with pytest.raises(StoppedError):
            cache.reader(descriptor(), Origin().fetch, give_up)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        first.close()

    def test_second_reader_resumes(self, cache: BlobCache) -> None:
        """When the one who fetches gives up, the next one goes on where they stopped."""
        origin, second = Origin(), Origin()
        first = cache.reader(descriptor(), origin.fetch)
        first.read(1000)
        got: list[bytes] = []

        def follow() -> None:
            got.append(read_all(cache.reader(descriptor(), second.fetch)))

        thread = threading.Thread(target=follow)
        thread.start()
        thread.join(0.1)
        first.close()
        thread.join(10)
        assert got == [CONTENT]
        assert second.offsets == [1000]

    def test_many_readers(self, cache: BlobCache) -> None:
        """Of many at a time one fetches, and all read the same."""
        origin, got = Origin(), list[bytes]()

        def follow() -> None:
            got.append(read_all(cache.reader(descriptor(), origin.fetch)))

        threads = [threading.Thread(target=follow) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert got == [CONTENT] * 8
        assert origin.offsets == [0]

    def test_unusable_folder(self, tmp_path: Path) -> None:
        """A cache that cannot be made is a StorageError that names its folder."""
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match=f"{tmp_path}/file"):
            BlobCache(tmp_path / "file" / "cache")


def bring(cache: BlobCache, name: str, content: Content) -> Image:
    """Read an image through the cache from a layout beside it, and keep it under a name."""
    source = Layout(write_layout(cache.folder.with_name("origin"), {"": content}))
    brought = read_image(source, source.find(), AMD64)
    for one in brought.layers:
        read_all(cache.reader(one.descriptor, source.blob))
    cache.keep(Reference.parse(name), brought)
    return brought


def age(cache: BlobCache, content: Content, days: float) -> None:
    """Make an image, and what it has, as old as that."""
    then = time.time() - days * 86400
    for key in content.blobs:
        path = cache.folder / "blobs" / key.replace(":", "/")
        if path.exists():
            os.utime(path, (then, then))


def check_layout(cache: BlobCache) -> dict[str, str]:
    """Check the cache as any reader of layouts sees it; return its names and their digests."""
    layout = json.loads((cache.folder / "oci-layout").read_bytes())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    top = json.loads((cache.folder / "index.json").read_bytes())
    assert top["schemaVersion"] == 2
    for entry in top["manifests"]:
        manifest = check_blob(cache, entry)
        document = json.loads(manifest)
        for below in (document["config"], *document["layers"]):
            check_blob(cache, below)
    return {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
        for entry in top["manifests"]
    }


def check_blob(cache: BlobCache, entry: dict[str, Any]) -> bytes:
    """Return a blob that is what its descriptor says."""
    path: Path = cache.folder / "blobs" / entry["digest"].replace(":", "/")
    content = path.read_bytes()
    assert (digest(content), len(content)) == (entry["digest"], entry["size"])
    return content


SHARED = layer(file("shared", os.urandom(100_000)), compression="")
BASE = image(SHARED)
APP = image(SHARED, layer(file("app", os.urandom(300_000)), compression=""))
OTHER = image(layer(file("other", os.urandom(500_000)), compression=""))


class TestCacheKeeping:
    """The cache is a valid layout at every moment."""

    def test_empty(self, cache: BlobCache) -> None:
        """A new cache is a layout of nothing."""
        assert check_layout(cache) == {}

    def test_names(self, cache: BlobCache) -> None:
        """Each reference is a name, and moves to what it was brought with last."""
        bring(cache, "reg.test/a:1", BASE)
        bring(cache, "reg.test/b:1", APP)
        assert check_layout(cache) == {"reg.test/a:1": BASE.digest, "reg.test/b:1": APP.digest}
        bring(cache, "reg.test/a:1", OTHER)
        assert check_layout(cache) == {"reg.test/a:1": OTHER.digest, "reg.test/b:1": APP.digest}
        assert str(Layout(cache.folder).find("reg.test/a:1").digest) == OTHER.digest

    def test_platform_of_an_index(self, cache: BlobCache) -> None:
        """Of an index the platform's manifest is kept."""
        bring(cache, "reg.test/a:1", index(BASE, attestation=True))
        assert check_layout(cache) == {"reg.test/a:1": BASE.digest}

    def test_replaced_image_goes(self, cache: BlobCache) -> None:
        """What no name leads to any more is removed, once it may not be of a job under way."""
        bring(cache, "reg.test/a:1", BASE)
        age(cache, BASE, 1)
        bring(cache, "reg.test/a:1", OTHER)
        assert stored(cache).keys() == {key.removeprefix("sha256:") for key in OTHER.blobs}

    def test_job_under_way_keeps_its_blobs(self, cache: BlobCache) -> None:
        """A young blob that no image names yet belongs to a job under way."""
        read_all(cache.reader(descriptor(), Origin().fetch))
        bring(cache, "reg.test/a:1", OTHER)
        assert CONTENT in stored(cache).values()

    def test_drop(self, cache: BlobCache) -> None:
        """An image loses its name with the first of its blobs that goes; others keep theirs."""
        bring(cache, "reg.test/base:1", BASE)
        bring(cache, "reg.test/app:1", APP)
        own = APP.document["layers"][1]["digest"]
        cache.drop([cache.folder / "blobs" / own.replace(":", "/"), cache.folder / "gone"])
        assert check_layout(cache) == {"reg.test/base:1": BASE.digest}
        assert own.removeprefix("sha256:") not in stored(cache)

    def test_drop_parts(self, cache: BlobCache) -> None:
        """A part that somebody fetches is not dropped; one that was left is."""
        (cache.folder / ".ingest" / ("a" * 64)).write_bytes(b"left")
        reader = cache.reader(descriptor(), Origin().fetch)
        reader.read(1000)
        cache.drop(list((cache.folder / ".ingest").iterdir()))
        assert parts(cache) == [CONTENT[:1000]]
        assert len(read_all(reader)) == len(CONTENT) - 1000
        assert list(stored(cache).values()) == [CONTENT]

    def test_what_jobs_use(self, cache: BlobCache) -> None:
        """What running jobs use is not removed, however old it is, though no image names it."""
        bring(cache, "reg.test/a:1", BASE)
        age(cache, BASE, 2)
        used = cache.folder / "blobs" / BASE.document["layers"][0]["digest"].replace(":", "/")
        source = Layout(write_layout(cache.folder.with_name("other"), {"": OTHER}))
        brought = read_image(source, source.find(), AMD64)
        for one in brought.layers:
            read_all(cache.reader(one.descriptor, source.blob))
        cache.keep(Reference.parse("reg.test/a:1"), brought, {used})
        assert len(stored(cache)) == len(OTHER.blobs) + 1
        assert used.exists()

    def test_abandoned_parts(self, cache: BlobCache) -> None:
        """A half-fetched blob is kept for a day to be resumed, and goes then."""
        for name, hours in (("a" * 64, 23), ("b" * 64, 25)):
            part = cache.folder / ".ingest" / name
            part.touch()
            os.utime(part, (time.time() - hours * 3600,) * 2)
        bring(cache, "reg.test/base:1", BASE)
        assert [part.name for part in (cache.folder / ".ingest").iterdir()] == ["a" * 64]

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"{}", b'{"manifests": [{}]}', b'{"manifests": 1}']
    )
    def test_damaged_index(self, content: bytes, cache: BlobCache) -> None:
        """A cache whose index was damaged, say by a power cut, starts over."""
        bring(cache, "reg.test/base:1", BASE)
        (cache.folder / "index.json").write_bytes(content)
        bring(cache, "reg.test/app:1", APP)
        assert check_layout(cache) == {"reg.test/app:1": APP.digest}

    @pytest.mark.parametrize("content", [None, b"", b"{}"])
    @pytest.mark.parametrize("which", ["manifest", "config", "layer"])
    def test_damaged_image(self, which: str, content: bytes | None, cache: BlobCache) -> None:
        """An image of which something is gone loses its name when the next one is kept."""
        bring(cache, "reg.test/other:1", OTHER)
        manifest = OTHER.document
        named = {
            "manifest": OTHER.digest,
            "config": manifest["config"]["digest"],
            "layer": manifest["layers"][0]["digest"],
        }
        path = cache.folder / "blobs" / named[which].replace(":", "/")
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        bring(cache, "reg.test/base:1", BASE)
        assert check_layout(cache) == {"reg.test/base:1": BASE.digest}

    def test_image_whose_blobs_went(self, cache: BlobCache) -> None:
        """An image one of whose blobs was evicted while it was brought gets no name."""
        brought = bring(cache, "reg.test/app:1", APP)
        (cache.folder / "blobs" / APP.document["layers"][0]["digest"].replace(":", "/")).unlink()
        cache.keep(Reference.parse("reg.test/app:2"), brought)
        assert check_layout(cache) == {}

    def test_side_by_side(self, cache: BlobCache) -> None:
        """Jobs side by side bring and keep without disturbing each other."""
        failures: list[Exception] = []

        def job(number: int) -> None:
            try:
                for turn in range(12):
                    content = Origin(os.urandom(60_000))
                    wanted = descriptor(content.content)
                    source = image(layer(file(f"{number}/{turn}", bytes(1000)), compression=""))
                    folder = write_layout(
                        cache.folder.with_name(f"origin{number}.{turn}"), {"": source}
                    )
                    layout = Layout(folder)
                    brought = read_image(layout, layout.find(), AMD64)
                    read_all(cache.reader(wanted, content.fetch), 4 << 10)
                    for one in brought.layers:
                        read_all(cache.reader(one.descriptor, layout.blob))
                    BlobCache(cache.folder).keep(Reference.parse(f"reg.test/i:{number}"), brought)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(exc)

        threads = [threading.Thread(target=job, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        check_layout(cache)


def test_opened_at_once(tmp_path: Path) -> None:
    """Jobs that open a new cache at the same moment do not disturb each other."""
    folders = [tmp_path / str(n) for n in range(100)]
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda n: BlobCache(folders[n // 4]), range(400)))
    assert {(cache.folder / "index.json").is_file() for cache in opened} == {True}
    assert not list(tmp_path.glob("*/.index.json.*"))
