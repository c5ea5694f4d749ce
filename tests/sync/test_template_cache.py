"""What `sync.template_cache` promises: a file made with what earlier ones left is the same file."""

from __future__ import annotations

import asyncio
import errno
import glob
import os
import random
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest
from pydantic import ByteSize

from syncd.convert import ConversionProcesses
from syncd.convert.frame_store import Frame, FrameStore
from syncd.errors import PublishError, StorageError, TargetUnavailableError
from syncd.sync.job import Outcome, Result
from syncd.sync.state_room import RoomShare
from tests.archives import directory, file
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness
from tests.images import Content, Layer, image, layer

MIB = 1 << 20
NOISE = random.Random(11).randbytes(1 << 20)


def base(text: bytes = b"", *more: bytes) -> Layer:
    """Return a layer of a large file and many small ones, with this text in one of them."""
    small = [
        file(f"usr/{nth:04}", NOISE[nth * 900 : nth * 900 + 900] + text * (nth == 700))
        for nth in range(1000)
    ]
    return layer(*more, directory("usr"), file("usr/large", NOISE), *small)


BASE = base()
TOP = layer(directory("opt"), file("opt/large", NOISE[: 1 << 17]), file("opt/small", b"one"))
FIRST, TOPPED = image(BASE), image(BASE, TOP)
REBUILT = image(base(b"changed", directory("new")))


async def bring(
    harness: Harness, registry: Registry, content: Content, tag: str = "latest"
) -> bytes:
    """Push an image and sync its tag; return the template."""
    before = set(harness.templates)
    registry.push(REPOSITORY, tag, content)
    outcome = await harness.bring(tag)
    assert outcome.result is Result.PUBLISHED
    (made,) = set(harness.templates) - before
    return made.read_bytes()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def fresh(folder: Path, registry: Registry, content: Content, lines: str = "") -> bytes:
    """Return the template that a syncd makes of an image when it has made none before."""
    async with Harness(made(folder), registry, image=lines) as harness:
        return await bring(harness, registry, content)


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the plain size of each frame that is compressed."""
    sizes: list[int] = []
    compress = FrameStore._compress

    def noting(self: FrameStore, name: bytes, plain: bytes | memoryview) -> tuple[Frame, bytes]:
        sizes.append(len(plain))
        return compress(self, name, plain)

    monkeypatch.setattr(FrameStore, "_compress", noting)
    return sizes


@pytest.mark.parametrize("form", ["rootfs", "oci"])
async def test_rebuilt_image(
    form: str, tmp_path: Path, registry: Registry, compressed: list[int]
) -> None:
    """Of an image built again, only what changed is compressed, and the file is the same."""
    lines = f'format = "{form}"'
    expected = await fresh(tmp_path / "fresh", registry, REBUILT, lines)
    async with Harness(tmp_path, registry, image=lines) as harness:
        await bring(harness, registry, FIRST)
        whole = sum(compressed)
        compressed.clear()
        assert await bring(harness, registry, REBUILT) == expected
        assert 0 < sum(compressed) < whole / 4


async def test_known_layers(tmp_path: Path, registry: Registry) -> None:
    """A layer that was unpacked before is neither fetched nor unpacked again."""
    expected = await fresh(tmp_path / "fresh", registry, TOPPED)
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        for blob in (tmp_path / "state" / "cache" / "blobs" / "sha256").iterdir():
            blob.unlink()
        registry.requests.clear()
        assert await bring(harness, registry, TOPPED) == expected
        layers = [one["digest"] for one in TOPPED.document["layers"]]
        assert set(registry.fetched()) & set(layers) == {layers[1]}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    """Change a byte in the middle, in the file that the path names and in no other name of it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, alter, Path.unlink])
@pytest.mark.parametrize("place", ["made/*.zst", "made/*.frames", "unpacked/*"])
@pytest.mark.parametrize("content", [TOPPED, REBUILT], ids=["topped", "rebuilt"])
async def test_damage(
    content: Content,
    place: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    registry: Registry,
) -> None:
    """Whatever was left behind may be damaged or gone: the file is the same."""
    expected = await fresh(tmp_path / "fresh", registry, content)
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        (left,) = (tmp_path / "state").glob(place)
        damage(left)
        assert await bring(harness, registry, content) == expected


async def test_another_level(tmp_path: Path, registry: Registry) -> None:
    """Frames of another compression level are left alone."""
    lines = "compression_level = 9"
    expected = await fresh(tmp_path / "fresh", registry, TOPPED, lines)
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
    async with Harness(tmp_path, registry, image=lines) as harness:
        assert await bring(harness, registry, TOPPED) == expected


async def test_bound_of_memory(
    tmp_path: Path, registry: Registry, compressed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of more frames than may be held are left alone, and the file is the same."""
    expected = await fresh(tmp_path / "fresh", registry, REBUILT)
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        (table,) = (tmp_path / "state" / "made").glob("*.frames")
        monkeypatch.setattr("syncd.convert.earlier._FRAMES", table.stat().st_size // 68 - 1)
        whole = sum(compressed)
        compressed.clear()
        assert await bring(harness, registry, REBUILT) == expected
        assert sum(compressed) > whole / 2


async def test_foreign_things(tmp_path: Path, registry: Registry) -> None:
    """A table whose template was deleted goes; a folder that somebody made is passed over."""
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        made = tmp_path / "state" / "made"
        (template,) = made.glob("*.zst")
        template.unlink()
        (table,) = made.iterdir()
        os.utime(table, (0, 0))
        (tmp_path / "state" / "unpacked" / "folder").mkdir()
        await harness.services.engine.tidy()
        assert list(made.iterdir()) == []
        assert (tmp_path / "state" / "unpacked" / "folder").is_dir()


async def test_warnings_go_with_their_template(tmp_path: Path, registry: Registry) -> None:
    """Sentences on an image lie beside its finished file, and no longer than the file does."""
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, image(layer(file("a", uid=70_000))))
        made = tmp_path / "state" / "made"
        (kept,) = made.glob("*.warnings")
        await harness.services.engine.tidy()
        assert "'./a' (70000:0)" in kept.read_text()
        few = harness.services.live.config.state.model_copy(update={"cache_max": ByteSize(1)})
        harness.configure(state=few)
        await harness.services.engine.tidy()
        assert list(made.iterdir()) == []


class Watcher(threading.Thread):
    """Looks again and again at how many bytes a state takes, files without a name among them."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self._state = state
        self._over = threading.Event()
        self.most = 0

    def run(self) -> None:
        """Look until the watcher is left."""
        while not self._over.wait(0.002):
            self.most = max(self.most, sum(self._sizes().values()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def _sizes(self) -> dict[int, int]:
        opened = glob.iglob("/proc/[0-9]*/fd/*")  # noqa: PTH207 - Path.glob follows these links
        nameless = (path for path in opened if self._is_nameless(path))
        named = (f"{below}/{name}" for below, _, names in os.walk(self._state) for name in names)
        found = {}
        for path in (*nameless, *named):
            with suppress(OSError):
                status = Path(path).stat()
                found[status.st_ino] = status.st_size
        return found

    def _is_nameless(self, path: str) -> bool:
        with suppress(OSError):
            to = str(Path(path).readlink())
            return to.startswith(str(self._state)) and to.endswith(" (deleted)")
        return False


def bound(harness: Harness, size: int) -> None:
    """Let the state take so many bytes."""
    state = harness.services.live.config.state
    harness.configure(state=state.model_copy(update={"cache_max": ByteSize(size)}))


def noise(size: int) -> Content:
    """Return an image that no compressor makes smaller."""
    return image(layer(file("noise", os.urandom(size)), compression=""))


async def test_jobs_side_by_side(tmp_path: Path, registry: Registry) -> None:
    """However many jobs run at a time, the state never takes more than its bound."""
    most, tags = 16 * MIB, [f"v{nth}" for nth in range(6)]
    processes = ConversionProcesses()
    with closing(processes):
        async with Harness(tmp_path, registry, processes=processes) as harness:
            bound(harness, most)
            for tag in tags:
                registry.push(REPOSITORY, tag, noise(2 * MIB))
            with Watcher(tmp_path / "state") as watcher:
                for outcome in await asyncio.gather(*map(harness.bring, tags)):
                    assert outcome.result is Result.PUBLISHED
            assert 8 * MIB < watcher.most <= most
            assert len(harness.templates) == len(tags)
            left = harness.services.engine.room.parts()
            assert sum(left.values()) <= most
            assert left["work"] == 0


async def test_too_large(tmp_path: Path, registry: Registry) -> None:
    """A job that never fits fails before a layer is fetched, says why, and harms no other job."""
    async with Harness(tmp_path, registry) as harness:
        bound(harness, 4 * MIB)
        large = noise(3 * MIB)
        registry.push(REPOSITORY, "large", large)
        registry.push(REPOSITORY, "small", noise(MIB // 2))
        small, failure = await asyncio.gather(
            harness.bring("small"), harness.bring("large"), return_exceptions=True
        )
        assert isinstance(small, Outcome)
        assert small.result is Result.PUBLISHED
        assert isinstance(failure, PublishError)
        assert "may take 0.004 GB (state.cache_max)" in str(failure)
        assert "the job needs 0.006 GB or more" in str(failure)
        assert large.document["layers"][0]["digest"] not in registry.fetched()


async def test_no_room_for_blobs(tmp_path: Path, registry: Registry) -> None:
    """Where there is room for the conversion alone, blobs are not kept as they are fetched."""
    async with Harness(tmp_path, registry) as harness:
        bound(harness, 5 * MIB)
        with Watcher(tmp_path / "state") as watcher:
            await bring(harness, registry, noise(2 * MIB))
        assert watcher.most <= 5 * MIB
        assert harness.services.engine.room.parts()["blobs"] < MIB


SMALL = image(layer(*(file(f"f{nth}", b"%d" % nth * 15_000) for nth in range(200))))
"""An image of 6 MB of small files, which are unpacked plain, in a layer of a hundredth of that."""


async def test_more_than_it_seemed(tmp_path: Path, registry: Registry) -> None:
    """A conversion that takes more than it seemed is given it, or begins anew with more room."""
    async with Harness(tmp_path, registry) as harness:
        bound(harness, 14 * MIB)
        await bring(harness, registry, noise(3 * MIB), "other")
        with Watcher(tmp_path / "state") as watcher:
            await bring(harness, registry, SMALL)
        assert watcher.most <= 14 * MIB


async def test_far_more_than_it_seemed(tmp_path: Path, registry: Registry) -> None:
    """A conversion that takes more than there can be fails, and leaves nothing of its work."""
    async with Harness(tmp_path, registry) as harness:
        bound(harness, 4 * MIB)
        registry.push(REPOSITORY, "latest", SMALL)
        with (
            Watcher(tmp_path / "state") as watcher,
            pytest.raises(TargetUnavailableError, match=r"\(state.cache_max\)") as failure,
        ):
            await harness.bring()
        assert failure.value.temporary
        assert watcher.most <= 4 * MIB
        assert harness.spool == []
        assert harness.templates == []


async def test_earlier_templates_in_use(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While frames of an earlier template may be copied, no other job removes the template."""
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        (earlier,) = (tmp_path / "state" / "made").glob("*.zst")
        room = harness.services.engine.room
        used: list[bool] = []
        hold_as_before = RoomShare.hold

        def hold(self: RoomShare, amount: int) -> None:
            used.append(earlier in room.in_use())
            hold_as_before(self, amount)

        monkeypatch.setattr(RoomShare, "hold", hold)
        await bring(harness, registry, REBUILT)
        assert used
        assert all(used)
        assert room.in_use() == set()


async def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses to list finished files fails the job in a sentence, which names them."""

    def refuse(path: Path, pattern: str) -> list[Path]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", FIRST)
        folder = harness.services.live.config.state.paths.templates
        monkeypatch.setattr(Path, "glob", refuse)
        with pytest.raises(StorageError, match=f"{folder} cannot be listed: Input/output error"):
            await harness.bring()
