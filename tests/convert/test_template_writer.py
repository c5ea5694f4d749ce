"""What `convert.template_writer` promises: the plan as one deterministic file that tars read."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from syncd.convert.frame_store import THREADS, FrameSizes, FrameStore
from syncd.convert.overlay import Entry
from syncd.convert.scratch import ScratchSpace
from syncd.convert.template_writer import write
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import LimitError, LostFrameError, StorageError
from syncd.limits import Allowance, Limits
from syncd.tar.member import DIRECTORY, FILE, HARD_LINK, SYMLINK, Member
from tests.templates import entries, put

FRAME_MAX, LARGE = FrameSizes().largest, FrameSizes().large
NOISE = os.urandom(10 << 20)


def plan(*members: Member) -> list[Entry]:
    """Return a plan of members of one layer."""
    return [Entry(member, 0) for member in members]


def regular(name: bytes, size: int, *extents: tuple[int, int, int]) -> Member:
    """Return a file whose content is in the layer, from its start unless `extents` say more."""
    whole = ((0, size, 0),) if size else ()
    return Member(name, FILE, 0o644, 0, 0, 0, size=size, extents=extents or whole)


@contextmanager
def spooled(*contents: bytes) -> Iterator[list[int]]:
    """Give file descriptors of these contents, one a layer."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in contents]
        for file, content in zip(files, contents, strict=True):
            file.write(content)
        yield [file.fileno() for file in files]


def none_yet(level: int = 1, *, remembered: bool = False) -> FrameStore:
    """Return the frames of a conversion that begins."""
    scratch = ScratchSpace(Path(tempfile.gettempdir())).new()
    return FrameStore(level, scratch, () if remembered else None)


def written(
    entries: Sequence[Entry],
    *contents: bytes,
    frames: FrameStore | None = None,
    level: int = 1,
    threads: int = THREADS,
    limits: Limits | None = None,
) -> tuple[bytes, WrittenTemplate]:
    """Write a plan; return the bytes of the template and what was said of them."""
    steps = list[int]()
    with (
        spooled(*contents) as fds,
        tempfile.TemporaryFile() as output,
        none_yet(level) as empty,
    ):
        result = write(
            entries,
            fds,
            output,
            frames=frames or empty,
            allowance=Allowance((limits or Limits()).unpacked, "the size of all files"),
            advance=steps.append,
            threads=threads,
            with_diff_id=True,
        )
        assert sum(steps) == result.plain_size
        output.seek(0)
        return output.read(), result


def plain(template: bytes) -> bytes:
    """Return a template's tar."""
    engine = zstandard.ZstdDecompressor()
    return engine.stream_reader(template, read_across_frames=True).read()


MIXED = plan(
    Member(b"./", DIRECTORY, 0o755, 0, 0, 0),
    *(regular(b"./%04d" % i, i * 37, (0, i * 37, i)) for i in range(1, 600)),
    regular(b"./large", len(NOISE)),
    regular(b"./zeros", 9 << 20, (5 << 20, 100, 50)),
    Member(b"./link", HARD_LINK, 0o644, 0, 0, 0, target=b"./0001"),
)


def test_content() -> None:
    """Every member comes out with its content, holes as zeros, behind each other."""
    found = {one.name: one for one in entries(plain(written(MIXED, NOISE)[0]))}
    assert list(found) == [entry.member.name for entry in MIXED]
    for i in range(1, 600):
        assert found[b"./%04d" % i].content == NOISE[i : i + i * 37]
    assert found[b"./large"].content == NOISE
    zeros = bytearray(9 << 20)
    zeros[5 << 20 : (5 << 20) + 100] = NOISE[50:150]
    assert found[b"./zeros"].content == zeros
    assert found[b"./link"].content == found[b"./0001"].content


def test_contents_of_several_layers() -> None:
    """Content is taken from the layer that the plan names."""
    both = [Entry(regular(b"./a", 3), 1), Entry(regular(b"./b", 3), 0)]
    found = entries(plain(written(both, b"low", b"top")[0]))
    assert [one.content for one in found] == [b"top", b"low"]


@pytest.mark.parametrize("level", [1, 3, 10])
def test_deterministic(level: int) -> None:
    """The same plan gives the same bytes, twice and with any number of threads."""
    outputs = {written(MIXED, NOISE, level=level, threads=n)[0] for n in (1, 1, 2, 4, THREADS)}
    assert len(outputs) == 1


def test_what_was_written() -> None:
    """Sizes and digests are those of the file and of the tar in it."""
    template, result = written(MIXED, NOISE)
    tar = plain(template)
    assert (result.size, result.plain_size) == (len(template), len(tar))
    assert result.digest.encoded == hashlib.sha256(template).hexdigest()
    assert result.diff_id
    assert result.diff_id.encoded == hashlib.sha256(tar).hexdigest()


def frames(template: bytes) -> list[bytes]:
    """Return the plain content of each zstd frame."""
    found = []
    while template:
        engine = zstandard.ZstdDecompressor().decompressobj()
        found.append(engine.decompress(template))
        assert zstandard.get_frame_parameters(template).has_checksum
        template = engine.unused_data
    return found


def test_frames() -> None:
    """The file is a row of frames with checksums, of bounded size and none of them empty."""
    sizes = [len(frame) for frame in frames(written(MIXED, NOISE)[0])]
    assert len(sizes) > 4
    assert all(0 < size <= FRAME_MAX for size in sizes)


def test_frames_of_large_files() -> None:
    """A large file's content has frames of its own, so that they are found wherever it stands."""
    tree = plan(regular(b"./a", 10), regular(b"./large", FRAME_MAX + LARGE), regular(b"./z", 10))
    content = NOISE[: FRAME_MAX + LARGE]
    assert frames(written(tree, NOISE)[0])[1:3] == [content[:FRAME_MAX], content[FRAME_MAX:]]


def test_change_moves_few_frames() -> None:
    """After one small file has grown, nearly all frames are the same bytes."""
    many = [regular(b"./%05d" % i, 20_000, (0, 20_000, i * 91)) for i in range(5000)]
    before = frames(written(plan(*many), NOISE)[0])
    many[2500] = regular(b"./02500", 33_000)
    after = frames(written(plan(*many), NOISE)[0])
    assert len(set(before) - set(after)) <= 1


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, FRAME_MAX - 512, FRAME_MAX, FRAME_MAX + 1])
def test_sizes(size: int) -> None:
    """A file of any size is whole and padded, also where a frame is just full."""
    found = entries(plain(written(plan(regular(b"./a", size), regular(b"./b", 3)), NOISE)[0]))
    assert [one.content for one in found] == [NOISE[:size], NOISE[:3]]


def compressed(name: bytes, content: bytes, frames: FrameStore) -> Member:
    """Return a file whose content was compressed before."""
    starts = range(0, len(content), FRAME_MAX)
    names = [put(frames, content[at : at + FRAME_MAX]) for at in starts]
    return Member(name, FILE, 0o644, 0, 0, 0, size=len(content), frames=names)


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("size", [LARGE, LARGE + 1, FRAME_MAX, FRAME_MAX + 1, len(NOISE)])
def test_frames_compressed_before(size: int, remembered: bool) -> None:
    """A template is the same bytes whether a large file was compressed before, or is now."""
    small = [regular(b"./a", 700), regular(b"./z", 9)]
    with none_yet(remembered=remembered) as frames:
        before = compressed(b"./large", NOISE[:size], frames)
        found, said = written(plan(small[0], before, small[1]), NOISE, frames=frames)
    made, _ = written(plan(small[0], regular(b"./large", size), small[1]), NOISE)
    assert found == made
    assert said.diff_id is not None
    assert said.diff_id.encoded == hashlib.sha256(plain(found)).hexdigest()


def test_table() -> None:
    """The table names each frame of the file, in their order, from where the file began."""
    with none_yet(remembered=True) as frames:
        template, said = written(MIXED, NOISE, frames=frames)
        again, _ = written(MIXED, NOISE, frames=frames)
    assert said.table is not None
    at = said.table.start
    for frame in said.table.frames:
        stored = template[at : at + frame.size]
        assert blake3(stored).digest() == frame.digest
        assert blake3(zstandard.decompress(stored)).digest() == frame.name
        at += frame.size
    assert (at, again) == (len(template), template)
    assert written(MIXED, NOISE)[1].table is None


def test_lost_frame() -> None:
    """A frame that members name and that is not there is told as lost."""
    with none_yet(remembered=True) as frames:
        gone = Member(b"./large", FILE, 0o644, 0, 0, 0, size=LARGE, frames=[bytes(32)])
        with pytest.raises(LostFrameError):
            written(plan(gone), NOISE, frames=frames)


def test_no_members() -> None:
    """A plan of nothing is an archive of nothing."""
    assert plain(written([])[0]) == bytes(1024)


def test_read_by_gnu_tar(tmp_path: Path) -> None:
    """GNU tar, with PVE's options, extracts what the plan says; the zstd command finds it whole."""
    tree = plan(
        Member(b"./", DIRECTORY, 0o755, 0, 0, 0),
        Member(b"./d/", DIRECTORY, 0o2751, 0, 0, 1_000_000_000_123_456_789),
        regular(b"./d/" + b"n" * 200 + b"\xff", 1000),
        Member(b"./d/e/", DIRECTORY, 0o700, 0, 0, -1_500_000_000),
        Member(b"./d/e/f", SYMLINK, 0o777, 0, 0, 7, target=b"../../../etc"),
        Member(b"./link", HARD_LINK, 0o644, 0, 0, 0, target=b"./d/" + b"n" * 200 + b"\xff"),
        regular(b"./zeros", 6 << 20, (3 << 20, 5, 0)),
    )
    template = tmp_path / "t.tar.zst"
    template.write_bytes(written(tree, NOISE)[0])
    subprocess.run(["zstd", "--test", "--quiet", template], check=True)
    root = tmp_path / "root"
    root.mkdir()
    keep = ["--numeric-owner", "--no-same-owner", "--acls", "--xattrs", "--skip-old-files"]
    done = subprocess.run(
        ["tar", "xpf", template, "--zstd", "--sparse", *keep, "-C", root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("implausibly old")) == (
        0,
        len(done.stderr.splitlines()),
    )
    long = root / "d" / os.fsdecode(b"n" * 200 + b"\xff")
    assert long.read_bytes() == NOISE[:1000]
    assert long.samefile(root / "link")
    assert (root / "d" / "e" / "f").readlink() == Path("../../../etc")
    assert (root / "zeros").read_bytes() == bytes(3 << 20) + NOISE[:5] + bytes((3 << 20) - 5)
    status = (root / "d").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o2751, 1_000_000_000_123_456_789)
    assert (root / "d" / "e").stat().st_mtime_ns == -1_500_000_000


def test_memory() -> None:
    """A file of 300 MiB takes no more memory than a few frames."""
    large = plan(regular(b"./a", 300 << 20, (150 << 20, len(NOISE), 0)))
    tracemalloc.start()
    template, _ = written(large, NOISE, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 << 20
    assert len(template) < 11 << 20


@pytest.mark.parametrize(
    "tree",
    [
        plan(regular(b"./a", 600, (0, 1, 0)), regular(b"./b", 500, (0, 1, 0))),
        plan(regular(b"./a", 1 << 59, (0, 1, 0))),
    ],
)
def test_limit(tree: list[Entry]) -> None:
    """Files that are too large together are refused, holes and all."""
    with pytest.raises(LimitError, match=r"limits\.unpacked"):
        written(tree, NOISE, limits=Limits(unpacked=1000))


def test_full_disk() -> None:
    """A disk that takes no more is a StorageError, and no thread is left behind."""
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        spooled(NOISE) as fds,
        none_yet() as frames,
        pytest.raises(StorageError, match="No space left"),
    ):
        write(
            MIXED,
            fds,
            full,
            frames=frames,
            allowance=Allowance(Limits().unpacked, "the size of all files"),
            advance=lambda _: None,
        )
    assert not [one for one in threading.enumerate() if one.name.startswith("compress")]


def test_shortened_scratch() -> None:
    """A scratch file that lost its end is a StorageError, not a shorter file."""
    with pytest.raises(StorageError, match="scratch file is shorter"):
        written(plan(regular(b"./a", 1000)), NOISE[:999])


def test_unreadable_scratch() -> None:
    """A scratch file that cannot be read is not taken for a template that cannot be written."""
    with (
        Path("/dev/null").open("wb") as unreadable,
        tempfile.TemporaryFile() as output,
        none_yet() as frames,
        pytest.raises(StorageError, match="scratch file cannot be read: Bad file descriptor"),
    ):
        write(
            plan(regular(b"./a", 1000)),
            [unreadable.fileno()],
            output,
            frames=frames,
            allowance=Allowance(Limits().unpacked, "the size of all files"),
            advance=lambda _: None,
        )


def test_stop() -> None:
    """Whoever is told of the progress may stop it."""

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with (
        spooled(NOISE) as fds,
        tempfile.TemporaryFile() as output,
        none_yet() as frames,
        pytest.raises(KeyboardInterrupt),
    ):
        write(
            MIXED,
            fds,
            output,
            frames=frames,
            allowance=Allowance(Limits().unpacked, "the size of all files"),
            advance=stop,
        )
