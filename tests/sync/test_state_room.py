"""What `sync.state_room` promises: the state is within its bound, and jobs keep what they use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from pydantic import ByteSize

from syncd.config import Config
from syncd.errors import FullStateError, NoRoomError, StoppedError, StorageError
from syncd.oci import BlobCache, Digest
from syncd.sync import state_room
from syncd.sync.state_room import Need, RoomShare, StateRoom
from syncd.sync.template_use import TemplateUse
from syncd.targets import Target
from tests.images import digest

BOUND = 10_000


@dataclass
class State:
    """A state with a bound, and the room that keeps it."""

    config: Config
    targets: Mapping[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.room = StateRoom(self)
        self.folder = self.config.state.directory
        BlobCache(self.config.state.paths.blob_cache)

    def write(self, name: str, size: int, age: float = 0) -> Path:
        """Write a file that was used so many seconds ago."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def blob(self, size: int, age: float = 0) -> Path:
        """Write a blob of zeros."""
        return self.write(f"cache/blobs/{digest(bytes(size)).replace(':', '/')}", size, age)

    def take(self, work: int, blobs: int = 0, *uses: Path) -> RoomShare:
        """Take room for a job that never ends; a blob of zeros is to be fetched."""
        fetched = {Digest.parse(digest(bytes(blobs))): blobs} if blobs else {}
        share = self.room.share(self.folder / "spool", lambda: Need(work, fetched, uses), _stop)
        return self.jobs.enter_context(share)

    jobs: ExitStack = field(default_factory=ExitStack)


def _stop() -> None:
    raise StoppedError("the job would have to wait")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Make a state that may take 10,000 bytes, some 200 of which its cache takes for itself."""
    config = Config()
    settings = config.state.model_copy(
        update={"directory": tmp_path, "cache_max": ByteSize(BOUND), "reserve": ByteSize(0)}
    )
    made = State(config.model_copy(update={"state": settings}))
    with made.jobs:
        yield made


def test_order(state: State) -> None:
    """What was used longest ago goes first, whatever it is, and not more than has to."""
    template = state.write("made/a.tar.zst", 2000, 40)
    beside = [state.write(f"made/a.tar.zst{end}", 100) for end in (".frames", ".warnings")]
    blob, layer = state.blob(2000, 30), state.write("unpacked/sha256-a", 2000, 20)
    part, young = state.write("cache/.ingest/b", 2000, 10), state.write("made/b.tar", 1000)
    kept = [template, *beside, blob, layer, part, young]
    for work, gone in ((100, 0), (1000, 3), (3000, 4), (6500, 5), (8600, 6), (9700, 7)):
        with state.room.share(state.folder / "spool", partial(Need, work), _stop):
            assert [path.exists() for path in kept] == [False] * gone + [True] * (7 - gone)


def test_shrink(state: State) -> None:
    """Without a job the state shrinks to its bound, whatever wrote more than that."""
    state.write("ledger.sqlite-wal", 4000)
    old, young = state.write("unpacked/a", 4000, 10), state.write("unpacked/b", 4000)
    state.room.shrink()
    assert (old.exists(), young.exists()) == (False, True)


def test_what_stays(state: State) -> None:
    """The ledger, and whatever cannot be made again, count and stay; so do files being written."""
    lasting = [
        state.write("ledger.sqlite", 3000, 99),
        state.write("trust/root.json", 1000, 99),
        state.write("unpacked/folder/file", 1000, 99),
        state.write("made/.a.frames.xyz", 1000, 99),
    ]
    spare = state.write("unpacked/a", 2000)
    with pytest.raises(NoRoomError) as failure:
        state.take(3900)
    assert all(path.exists() for path in lasting)
    assert not spare.exists()
    assert failure.value.temporary
    assert "may take 0.000 GB (state.cache_max)" in str(failure.value)
    state.take(3500)


def test_what_jobs_use(state: State) -> None:
    """What a running job uses or fetches stays; a job that would need its place has to wait."""
    blob, layer = state.blob(2000, 99), state.write("unpacked/a", 2000, 99)
    share = state.take(1000, 1500, blob, layer)
    coming = BlobCache.places(state.folder / "cache", next(iter(share.need.blobs)))[1]
    state.write(f"cache/.ingest/{coming.name}", 700, 99)
    with pytest.raises(StoppedError):
        state.take(4000)
    assert all(path.exists() for path in (blob, layer, coming))
    assert state.room.in_use() >= {blob, layer, coming}
    state.jobs.close()
    state.take(9500)
    assert not any(path.exists() for path in (blob, layer, coming))


def test_template_on_its_way(state: State) -> None:
    """A finished template that is being published stays, and what needs its place waits."""
    template = state.write("made/a.tar.zst", 5000, 99)
    with TemplateUse() as use:
        assert use.add(template)
        with pytest.raises(StoppedError):
            state.take(6000)
        assert template.exists()
    state.take(6000)
    assert not template.exists()
    assert not TemplateUse().add(template)


def test_blobs_count_once(state: State) -> None:
    """A blob that two jobs fetch takes its place once, and what is there of it counts within."""
    state.take(100, 4000)
    state.take(100, 4000)
    state.blob(4000)
    state.take(5000)
    with pytest.raises(StoppedError):
        state.take(800)


def test_more_than_promised(state: State) -> None:
    """A conversion that writes more than promised makes room, and is refused the rest."""
    layer = state.write("unpacked/a", 3000)
    share = state.take(4000)
    share.hold(4000)
    assert layer.exists()
    share.hold(3500)
    assert not layer.exists()
    with pytest.raises(FullStateError, match=r"state.cache_max"):
        share.hold(5000)
    assert share.refused == 12_500
    share.hold(-3500)
    state.take(5000)


def test_waiting(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs wait for room first come, first served, and go on as soon as others end."""
    monkeypatch.setattr(state_room, "_LOOK", 30)
    state.take(9000)
    order: list[int] = []
    began = [threading.Event(), threading.Event()]

    def job(work: int, nth: int) -> None:
        with state.room.share(state.folder / f"job-{nth}", lambda: Need(work), began[nth].set):
            order.append(nth)

    threads = [threading.Thread(target=job, args=each) for each in ((8000, 0), (100, 1))]
    for thread, waiting in zip(threads, began, strict=True):
        thread.start()
        assert waiting.wait(10)
    assert order == []
    state.jobs.close()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1]


def test_own_results_make_room(state: State) -> None:
    """A job that nobody else has to make room for makes again what it would have used."""
    blob = state.blob(6000)
    looks: list[bool] = []

    def need() -> Need:
        looks.append(blob.exists())
        return Need(5000, uses=[blob])

    with state.room.share(state.folder / "spool", need, lambda: None):
        assert looks == [True, False]


def test_disk(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has little left makes room, too; what running jobs will write is spoken for."""
    free = 3000
    layer = state.write("unpacked/a", 2000)
    monkeypatch.setattr(
        state_room, "free_and_total", lambda _: (free - 2000 * layer.exists(), 1 << 30)
    )
    share = state.take(1000)
    assert layer.exists()
    with pytest.raises(StoppedError):
        state.take(2500)
    assert not layer.exists()
    free = 2100
    share.hold(900)
    state.take(1900)
    free = 0
    state.jobs.close()
    with pytest.raises(NoRoomError, match=r"has 0\.00 GB free, the job needs"):
        state.take(1)


def test_no_state(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that cannot be looked at is an error that names its folder."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(state_room, "look", refuse)
    with pytest.raises(StorageError, match=f"{state.folder} cannot be looked at: Permission"):
        state.take(1)


def test_parts(state: State) -> None:
    """Each part of the state is told, and what running conversions were promised."""
    empty = state.room.parts()
    state.blob(1000)
    for name, size in (
        ("made/a", 200),
        ("unpacked/a", 300),
        ("ledger.sqlite", 400),
        ("ledger.sqlite-wal", 50),
        ("trust/a", 60),
        ("spool/job-of-another-process/a", 70),
    ):
        state.write(name, size)
    with state.room.share(state.folder / "spool" / "own", lambda: Need(800), _stop):
        state.write("spool/own/part", 700)
        found = state.room.parts()
    assert {name: size - empty[name] for name, size in found.items()} == {
        "blobs": 1000,
        "templates": 200,
        "unpacked": 300,
        "ledger": 450,
        "work": 870,
        "other": 60,
    }
