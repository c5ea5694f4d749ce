"""What `convert` promises: the template appears complete and right, or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from syncd.convert.capacity import Capacity, CrowdedError, Share
from syncd.convert.frame_store import FrameSizes
from syncd.convert.options import Options
from syncd.convert.pipeline import attempt, convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import (
    ImageError,
    LimitError,
    LostFrameError,
    StoppedError,
    StorageError,
    SyncdError,
    VerificationError,
)
from syncd.formats import Format
from syncd.limits import Limits
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.source import OpenedImage, open_image
from syncd.progress import Advance, Progress, Silence
from tests.archives import (
    directory,
    file,
    hardlink,
    member,
    opaque,
    symlink,
    tar,
    whiteout,
)
from tests.images import (
    Content,
    Layer,
    digest,
    document,
    image,
    index,
    layer,
    layer_of,
    write_layout,
)
from tests.templates import convert_layout, decompressed, flatten, read

BASE = layer(
    directory("bin"),
    file("bin/ping", b"\x7fELF", mode=0o755, xattrs={"security.capability": b"\1\0\0\2\0 \0"}),
    hardlink("bin/ping6", "bin/ping"),
    directory("etc", mtime=1_500_000_000_123_456_789),
    file("etc/hosts", b"old"),
    file(b"etc/caf\xe9", b"latin", uid=1 << 31, gid=(1 << 32) - 2),
    member("dev/null", b"3", device=(1, 3), mode=0o666),
    symlink("lib", "usr/lib"),
    file("usr/lib/so", b"so", mtime=-1),
    file("var/gone/deep", b"x"),
)
TOP = layer(
    whiteout("bin/ping"),
    whiteout("var/gone"),
    opaque("etc"),
    file("etc/hosts", b"new"),
    file("lib/added", b"added"),
    compression="zstd",
)


def lines(template: Path) -> list[str]:
    """Return a template's names in order, with content, a link's target, or an empty string."""
    return [
        f"{one.name.decode('latin-1')} {(one.target or one.content).decode('latin-1')}".rstrip()
        for one in read(template)
    ]


def open_files() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


FLAT = [
    "./",
    "./bin/",
    "./bin/ping6 \x7fELF",
    "./etc/",
    "./etc/hosts new",
    "./lib usr/lib",
    "./usr/",
    "./usr/lib/",
    "./usr/lib/added added",
    "./usr/lib/so so",
    "./var/",
    "./dev/",
    "./dev/null",
]


@pytest.mark.parametrize("docker", [False, True], ids=["OCI", "Docker"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_images(docker: bool, compression: str, tmp_path: Path) -> None:
    """OCI and Docker images, in an index or not, compressed in any way, give the same tree."""
    base, top = (layer_of(one.plain, compression) for one in (BASE, TOP))
    alone = image(base, top, docker=docker)
    other = image(BASE, docker=docker, platform="linux/arm64")
    assert lines(flatten(alone, tmp_path)) == FLAT
    whole = index(other, alone, docker=docker, attestation=True)
    assert lines(flatten(whole, tmp_path)) == FLAT


def test_metadata(tmp_path: Path) -> None:
    """Owners, times, modes, device numbers and attributes come through."""
    found = {one.name: one for one in read(flatten(image(BASE), tmp_path))}
    assert found[b"./bin/ping"].xattrs == {"security.capability": b"\1\0\0\2\0 \0"}
    assert found[b"./bin/ping"].mode == 0o755
    assert found[b"./etc/"].mtime == 1_500_000_000_123_456_789
    assert found[b"./etc/caf\xe9"].owner == (1 << 31, (1 << 32) - 2)
    assert found[b"./usr/lib/so"].mtime == -1
    assert found[b"./dev/null"].device == (1, 3)
    assert (found[b"./bin/ping6"].kind, found[b"./bin/ping6"].target) == (b"1", b"./bin/ping")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (image(), ["./"]),
        (image(layer()), ["./"]),
        (image(layer_of(b""), layer_of(b"", "zstd"), layer_of(b"", "")), ["./"]),
        (image(layer(), BASE, layer(), TOP, layer()), FLAT),
        (image(BASE, TOP, BASE, TOP), FLAT),
    ],
)
def test_empty_and_repeated_layers(content: Content, expected: list[str], tmp_path: Path) -> None:
    """Layers may be empty, and may come again."""
    assert lines(flatten(content, tmp_path)) == expected


def test_deterministic(tmp_path: Path) -> None:
    """The same image gives the same bytes, however its layers were compressed and stored."""
    outputs = set()
    for number, compression in enumerate(("", "gzip", "zstd", "gzip")):
        folder = tmp_path / str(number)
        folder.mkdir()
        layers = [layer_of(one.plain, compression) for one in (BASE, TOP)]
        outputs.add(flatten(image(*layers, docker=bool(number % 2)), folder).read_bytes())
    assert len(outputs) == 1


def test_replaces(tmp_path: Path) -> None:
    """What stood at the output is replaced, once the new one is complete."""
    template = flatten(image(BASE, TOP), tmp_path)
    before = template.read_bytes()
    with pytest.raises(ImageError):
        flatten(image(layer(hardlink("a", "b"))), tmp_path)
    assert template.read_bytes() == before
    assert lines(flatten(image(layer()), tmp_path)) == ["./"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["template.tar.zst"]


@pytest.mark.parametrize("is_allowed", [True, False])
def test_priority(is_allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that compress stand back where a sandbox allows it; no other's priority changes."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    stood_back: set[str] = set()

    def noted(which: int, who: int, priority: int) -> None:
        assert priority > before
        if not is_allowed:
            raise PermissionError
        really(which, who, priority)
        stood_back.add(threading.current_thread().name.partition("_")[0])

    really = os.setpriority
    monkeypatch.setattr(os, "setpriority", noted)
    flatten(image(layer(file("large", bytes(100_000)))), tmp_path)
    assert stood_back == ({"compress"} if is_allowed else set())
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def altered(content: Content, change: dict[str, object]) -> Content:
    """Return an image with other fields in its manifest."""
    return document(content.document | change, content.blobs)


def lying(*layers: Layer, about: list[bytes]) -> Content:
    """Return an image whose config promises the diff_ids of these tars instead."""
    pairs = zip(layers, about, strict=True)
    return image(*[Layer(one.stored, plain, one.compression) for one, plain in pairs])


def without(content: Content, *keys: str) -> Content:
    """Return an image that lost blobs."""
    return Content(content.descriptor, {k: v for k, v in content.blobs.items() if k not in keys})


def swapped(content: Content, key: str, blob: bytes) -> Content:
    """Return an image with other bytes in a blob."""
    return Content(content.descriptor, content.blobs | {key: blob})


SIMPLE = image(BASE, TOP)
BASE_KEY, CONFIG_KEY = digest(BASE.stored), SIMPLE.document["config"]["digest"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (without(SIMPLE, BASE_KEY), ImageError, "lacks the blob"),
        (without(SIMPLE, CONFIG_KEY), ImageError, "does not exist"),
        (without(SIMPLE, SIMPLE.digest), ImageError, "does not exist"),
        (swapped(SIMPLE, BASE_KEY, TOP.stored), VerificationError, "bytes|content"),
        (swapped(SIMPLE, BASE_KEY, BASE.stored[:-1]), VerificationError, "fewer"),
        (swapped(SIMPLE, BASE_KEY, BASE.stored + b"\0"), VerificationError, "more"),
        (swapped(SIMPLE, CONFIG_KEY, b"{}"), VerificationError, "bytes"),
        (swapped(SIMPLE, SIMPLE.digest, b"{}"), VerificationError, "bytes"),
        (lying(BASE, about=[TOP.plain]), VerificationError, "diff_id"),
        (lying(BASE, TOP, about=[TOP.plain, TOP.plain]), VerificationError, "diff_id"),
        (lying(TOP, BASE, about=[TOP.plain, TOP.plain]), VerificationError, "diff_id"),
        (image(layer(hardlink("a", "b"))), ImageError, "no target"),
        (image(BASE, layer(file("../../etc/passwd"))), ImageError, "climbs"),
        (image(layer(file("a")), layer(file("a/b"))), ImageError, "not a directory"),
        (image(layer_of(tar(file("a", b"x" * 99))[:600])), ImageError, "cut short"),
        (image(layer_of(b"no tar" * 999)), ImageError, "tar header"),
        (image(Layer(BASE.stored[:-9], BASE.plain, "gzip")), ImageError, "gzip"),
        (image(Layer(BASE.plain, BASE.plain, "gzip")), ImageError, "gzip"),
        (image(Layer(BASE.stored, BASE.plain, "zstd")), ImageError, "zstd"),
        (image(Layer(BASE.stored, BASE.plain, "")), ImageError, "is gzip, but its media type"),
        (image(Layer(BASE.stored, BASE.plain, "xz")), ImageError, "media type"),
        (altered(SIMPLE, {"layers": SIMPLE.document["layers"][:1]}), ImageError, "names 2 layers"),
    ],
)
def test_refused(content: Content, error: type[ImageError], message: str, tmp_path: Path) -> None:
    """An image that is not right leaves the output folder empty, whatever is wrong."""
    open_before = open_files()
    with pytest.raises(error, match=message):
        flatten(content, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "spool").iterdir()) == []
    assert open_files() == open_before


@pytest.mark.parametrize(
    ("content", "limits", "bound"),
    [
        (image(BASE, TOP, TOP), Limits(layers=2), "layers"),
        (image(BASE, TOP), Limits(entries=len(FLAT)), "entries"),
        (image(BASE), Limits(path=12), "path"),
        (image(BASE), Limits(header=20), "header"),
        (image(BASE, TOP), Limits(metadata=200), "metadata"),
        (image(BASE, TOP), Limits(unpacked=len(BASE.plain)), "unpacked"),
        (
            image(layer(file("a", bytes(60_000)), *(file(f"{i}") for i in range(9))), layer()),
            Limits(unpacked=60_000),
            "unpacked",
        ),
        (
            image(layer(file("a", records={"GNU.sparse.size": "9999999"}))),
            Limits(unpacked=1 << 20),
            "unpacked",
        ),
    ],
)
def test_limits(content: Content, limits: Limits, bound: str, tmp_path: Path) -> None:
    """An image beyond a bound is refused with the bound's name, and leaves nothing."""
    with pytest.raises(LimitError, match=rf"limits\.{bound}"):
        flatten(content, tmp_path, limits)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["none/out", "file/out", "n" * 255, "folder", "n" * 240 + "/o"])
def test_unwritable_output(name: str, tmp_path: Path) -> None:
    """An output that cannot be written is a StorageError that names it, and nothing is left."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': SIMPLE})}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match=name):
        convert(opened, tmp_path / name, Options(ScratchSpace(tmp_path)))
    assert sorted(tmp_path.rglob("*")) == before


class Stopping:
    """A progress that stops the work at a step."""

    def __init__(self, step: str) -> None:
        self._step = step

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Stop at once if it is the step."""

        def advance(_: int) -> None:
            if step == self._step:
                raise StoppedError("the daemon is stopping")

        return advance


@pytest.mark.parametrize("step", ["layer", "flatten"])
def test_stop(step: str, tmp_path: Path) -> None:
    """Stopped midway, a conversion leaves nothing: no file, no thread, no descriptor."""
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': SIMPLE})}")
    (tmp_path / "out").mkdir()
    open_before = open_files()
    options = Options(ScratchSpace(tmp_path), progress=Stopping(step))
    with pytest.raises(StoppedError):
        convert(opened, tmp_path / "out" / "o", options)
    assert list((tmp_path / "out").iterdir()) == []
    assert open_files() == open_before
    assert not [one for one in threading.enumerate() if one.name.startswith(("layer", "compress"))]


class Trickle:
    """A blob that never comes to its end."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int, /) -> bytes:
        """Return a byte; fail when nobody ever loses patience."""
        self.reads += 1
        assert self.reads < 100_000
        time.sleep(0.001)
        return b"\0"

    def close(self) -> None:
        """Do nothing."""


def test_failure_ends_the_rest(tmp_path: Path) -> None:
    """When a layer fails, the others are given up, however long they would take."""
    slow, bad = layer(file("a"), compression=""), layer(file("b"), compression="")
    layout = write_layout(tmp_path / "layout", {"": image(bad, slow)})
    found = open_image(f"oci:{layout}").image

    def open_layer(wanted: Descriptor) -> Reader:
        if wanted == found.layers[1].descriptor:
            return Trickle()
        raise VerificationError("blob has other content than its digest says")

    opened = OpenedImage(found, open_layer)
    with pytest.raises(VerificationError, match="other content"):
        convert(opened, tmp_path / "o", Options(ScratchSpace(tmp_path)))


@pytest.mark.parametrize("form", Format)
def test_room(form: Format, tmp_path: Path) -> None:
    """Every byte of scratch, template and table is counted, except those of a kept layer."""
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': SIMPLE})}")
    beyond = []
    for kept in (None, tmp_path / "kept"):
        counted: list[int] = []
        options = Options(
            ScratchSpace(tmp_path, kept, counted.append),
            format=form,
            earlier=(),
            table=tmp_path / "table",
        )
        written = convert(opened, tmp_path / "o", options)
        assert written.size == (tmp_path / "o").stat().st_size
        beyond.append(sum(counted) - written.size - (tmp_path / "table").stat().st_size)
    contents = sum(map(len, (b"\x7fELF", b"old", b"latin", b"so", b"x", b"new", b"added")))
    assert beyond == [contents, 0]


@pytest.mark.parametrize("error", [LostFrameError("a frame is gone"), CrowdedError(1 << 20)])
def test_room_of_an_attempt(error: SyncdError, tmp_path: Path) -> None:
    """What an attempt wrote that begins anew is counted no more."""
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': SIMPLE})}")
    counted: list[int] = []
    faults = [error]

    def run(image: OpenedImage, output: Path, options: Options, share: Share) -> WrittenTemplate:
        options.scratch.room(1000)
        if faults:
            raise faults.pop()
        return attempt(image, output, options, share)

    options = Options(ScratchSpace(tmp_path, room=counted.append))
    written = convert(opened, tmp_path / "o", options, run)
    assert counted[:2] == [1000, -1000]
    assert counted[2] == 1000
    assert sum(counted[3:]) >= written.size


def test_stop_at_a_kept_layer(tmp_path: Path) -> None:
    """Stopped when a layer was just taken up, a conversion leaves no descriptor open."""
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': SIMPLE})}")

    def again(progress: Progress) -> None:
        scratch = ScratchSpace(tmp_path, tmp_path / "kept")
        convert(opened, tmp_path / "o", Options(scratch, progress=progress, earlier=()))

    again(Silence())
    open_before = open_files()
    with pytest.raises(StoppedError) as told:
        again(Late())
    assert (open_files(), str(told.value)) == (open_before, "the daemon is stopping")


class Late:
    """A progress that stops the work once something of a layer is done."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Stop at the first byte."""

        def advance(amount: int) -> None:
            if amount:
                raise StoppedError("the daemon is stopping")

        return advance


def test_more_layers_than_open_files(tmp_path: Path) -> None:
    """An image of more layers than files may be open is a StorageError that says so."""
    layout = write_layout(
        tmp_path / "layout", {"": image(*(layer(file(f"{i}")) for i in range(99)))}
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in range(open_files() + 20, open_files() + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        try:
            with pytest.raises(StorageError, match="Too many open files"):
                convert_layout(layout, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_frame_sizes(tmp_path: Path) -> None:
    """Frames of other sizes are cut where they say; the plain tar stays the same."""
    content = image(layer(file("a", bytes(range(250)) * 20), *(file(f"{i}") for i in range(9))))
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': content})}")
    plain = list[bytes]()
    for name, sizes in (("usual", FrameSizes()), ("small", FrameSizes(1500, 600, 700))):
        options = Options(ScratchSpace(tmp_path), earlier=(), frame_sizes=sizes)
        table = convert(opened, tmp_path / name, options).table
        assert table is not None
        plain.append(decompressed(tmp_path / name))
        stored, at = (tmp_path / name).read_bytes(), 0
        for frame in table.frames:
            size = len(zstandard.decompress(stored[at : at + frame.size]))
            assert 0 < size <= sizes.largest
            at += frame.size
        assert len(table.frames) >= -(-len(plain[-1]) // sizes.largest)
    assert plain[0] == plain[1]


MEASURE = """
import sys
from pathlib import Path
from tests.memory import Growth
from tests.templates import convert_layout
growth = Growth()
convert_layout(Path(sys.argv[1]), Path(sys.argv[2]))
print(growth.now())
"""


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_memory(compression: str, tmp_path: Path) -> None:
    """A layer of 300 MiB, a file of zeros, takes memory for a few frames."""
    large = layer(file("a", bytes(300 << 20)), file("b", b"end"), compression=compression)
    layout = write_layout(tmp_path / "layout", {"": image(large)})
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, layout, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert int(done.stdout) < 70 << 20
    assert read(tmp_path / "out" / "template.tar.zst")[-1].content == b"end"


def test_refused_layer_is_named(tmp_path: Path) -> None:
    """What a layer may not do to those below is told with the layer that does it, once."""
    bad = layer(hardlink("a", "gone"))
    layout = write_layout(tmp_path / "layout", {"": image(layer(file("b")), bad)})
    with pytest.raises(ImageError, match=r"hard link 'a' to 'gone'") as told:
        convert_layout(layout, tmp_path)
    assert str(told.value).count(f"layer sha256:{hashlib.sha256(bad.stored).hexdigest()}") == 1


def test_memory_that_others_hold(tmp_path: Path) -> None:
    """A conversion that others leave too little memory begins anew when they end, and is whole."""
    write_layout(tmp_path / "image", {"latest": image(layer(file("a", b"1" * 200_000)))})
    opened = open_image(f"oci:{tmp_path / 'image'}:latest")
    capacity = Capacity(2, Limits().memory)
    steps: list[str] = []

    class Steps(Silence):
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            steps.append(step)
            return super().begin(step, subject, total)

    options = Options(ScratchSpace(tmp_path), capacity=capacity, progress=Steps())
    with ThreadPoolExecutor(1) as thread:
        with capacity.share(Limits().memory.maximum - (10 << 20), lambda: None):
            running = thread.submit(convert, opened, tmp_path / "out", options)
            while "wait" not in steps:
                assert not running.done()
                time.sleep(0.01)
            assert steps[0] == "layer"
        running.result(20)
    assert capacity.held == 0
    assert steps.count("flatten") == 1
    assert (tmp_path / "out").stat().st_size
