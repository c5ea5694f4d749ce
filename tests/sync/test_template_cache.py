"""What `stock` promises: a file made with what earlier ones left is the same file."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ByteSize

from syncd.convert.frame_store import Frame, FrameStore
from syncd.errors import StorageError
from syncd.sync.job import Result
from tests.archives import directory, file
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness
from tests.images import Content, Layer, image, layer

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
        for path in made.iterdir():
            os.utime(path, (0, 0))
        few = harness.services.live.config.state.model_copy(update={"cache_max": ByteSize(1)})
        harness.configure(state=few)
        await harness.services.engine.tidy()
        assert list(made.iterdir()) == []


async def test_bound(tmp_path: Path, registry: Registry) -> None:
    """What is left behind is bounded with the cache: unused ones go, the youngest files stay."""
    async with Harness(tmp_path, registry) as harness:
        await bring(harness, registry, FIRST)
        await bring(harness, registry, TOPPED, "topped")
        state = tmp_path / "state"
        finished = sorted((state / "made").glob("*.zst"), key=lambda path: path.stat().st_size)
        os.utime(finished[0], (0, 0))
        config = harness.services.live.config
        few = config.state.model_copy(update={"cache_max": ByteSize(1000)})
        await harness.services.engine.tidy()
        assert len(list((state / "unpacked").iterdir())) == 2
        harness.configure(state=few)
        await harness.services.engine.tidy()
        assert list((state / "unpacked").iterdir()) == []
        assert {path.name.partition(".")[0] for path in (state / "made").iterdir()} == {
            finished[1].name.partition(".")[0]
        }


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
