"""What `convert.isolation` promises: a conversion as any other, whose death is its own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from syncd.convert import Capacity, ConversionProcesses, Options, ScratchSpace, convert
from syncd.convert.capacity import Alive, _CountedShare
from syncd.convert.conversion_process import UNCOUNTED
from syncd.convert.fork_server import Main
from syncd.convert.isolation import PROCESS, SILENT_MAX
from syncd.convert.pipeline import BASE
from syncd.errors import (
    ConversionDiedError,
    FullStateError,
    ImageError,
    LimitError,
    NoProcessError,
    RegistryUnavailableError,
    StoppedError,
    StorageError,
    SyncdError,
    VerificationError,
)
from syncd.formats import Format
from syncd.limits import Limits
from syncd.oci import Descriptor, OpenedImage, Reader, open_image
from syncd.progress import Advance, Silence
from tests.archives import directory, file, hardlink
from tests.chunked import chunked_layer
from tests.convert import poisoned
from tests.convert.parts.pulling import Puller, pulled_whole
from tests.convert.parts.test_mirrors import Mirrors, wrong
from tests.convert.parts.test_pull import FIRST, SECOND, spoiled, swap_files, tree
from tests.convert.poisoned import NONSENSE
from tests.images import Content, digest, image, layer, write_layout
from tests.processes import hanging_below, is_gone, until

SAMPLE = image(
    layer(directory("usr"), file("usr/large", bytes(range(256)) * 2000)),
    layer(file("usr/small", b"small"), file("owned", uid=70_000), compression="zstd"),
)
POISON = image(layer(file("a", b"1" * 5000)), runtime={"User": "poison"})


def opened(folder: Path, content: Content = SAMPLE) -> OpenedImage:
    """Return an image of a layout in this folder."""
    return open_image(f"oci:{write_layout(folder / 'layout', {'latest': content})}:latest")


@pytest.fixture
def processes() -> Iterator[ConversionProcesses]:
    with closing(ConversionProcesses()) as made:
        yield made


def going_wrong(main: Main) -> closing[ConversionProcesses]:
    """Return processes that go wrong with a poisoned image as `main` does."""
    return closing(ConversionProcesses(main))


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("remembered", [True, False])
def test_same(
    form: Format, remembered: bool, processes: ConversionProcesses, tmp_path: Path
) -> None:
    """A process writes the same file, says the same of it, and leaves the same for later."""
    given = opened(tmp_path)
    results = []
    for name, act in (("here", convert), ("there", processes.convert)):
        place = tmp_path / name
        place.mkdir()
        earlier = () if remembered else None
        options = Options(
            ScratchSpace(place, place / "kept"),
            format=form,
            earlier=earlier,
            table=place / "table",
        )
        written = act(given, place / "template", options)
        found = [written.size, written.digest, written.diff_id, written.plain_size]
        found += [written.warnings, written.is_suitable]
        found += [(place / "template").read_bytes()]
        found += [sorted(path.name for path in place.rglob("*"))]
        found += [path.read_bytes() for path in place.glob("table")]
        results.append(found)
    assert results[0] == results[1]
    assert len(results[0]) == 8 + remembered


def test_room(processes: ConversionProcesses, tmp_path: Path) -> None:
    """What a process writes is counted before it is written, and a refusal ends the conversion."""
    counted: list[int] = []
    space = ScratchSpace(tmp_path, tmp_path / "kept", counted.append)
    written = processes.convert(opened(tmp_path), tmp_path / "out", Options(space, earlier=()))
    assert written.size <= sum(counted) <= 32 << 20  # the process asks for steps of 16 MiB

    def refuse(_: int) -> None:
        raise FullStateError("the state is full", "make room")

    full = Options(ScratchSpace(tmp_path, room=refuse))
    with pytest.raises(FullStateError, match="the state is full; make room"):
        processes.convert(opened(tmp_path / "2"), tmp_path / "full", full)
    assert not (tmp_path / "full").exists()


def test_many_layers(processes: ConversionProcesses, tmp_path: Path) -> None:
    """An image may have many layers, of which only a few are read at a time."""
    given = opened(tmp_path, image(*(layer(file(f"{nth}")) for nth in range(60))))
    contents = []
    for act in (convert, processes.convert):
        act(given, tmp_path / "out", Options(ScratchSpace(tmp_path)))
        contents.append((tmp_path / "out").read_bytes())
    assert contents[0] == contents[1]


def test_parts(processes: ConversionProcesses, tmp_path: Path) -> None:
    """A process that gets ranges writes the same file, with as few bytes of layers."""
    results = []
    for name, act in (("here", convert), ("there", processes.convert)):
        (tmp_path / name).mkdir()
        puller = Puller(tmp_path / name, act=act)
        puller.pull(FIRST)
        results.append((puller.pull(SECOND), puller.fetched, puller.whole, puller.doubts))
    assert results[0] == results[1]
    assert results[0][2] == []


class Steps(Silence):
    """A progress that notes how much of which step was done."""

    def __init__(self) -> None:
        self.done: dict[tuple[str, str, int | None], int] = {}

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        self.done[step, subject, total] = 0

        def advance(amount: int) -> None:
            self.done[step, subject, total] += amount

        return advance


def test_mirrors(processes: ConversionProcesses, tmp_path: Path) -> None:
    """A process that gets other bytes has others asked, and says whether theirs were right."""
    puller = Puller(tmp_path, act=processes.convert)
    puller.pull(FIRST)
    mirrors = Mirrors(1, 1)
    puller.spoil = mirrors.before
    third = chunked_layer(tree(b"third"))
    assert puller.pull(third) == pulled_whole(tmp_path, third)
    assert puller.whole == []
    assert mirrors.mistrusted == {digest(third.stored): {0}}
    assert digest(third.stored) in mirrors.vouched
    told = spoiled(swap_files)
    puller.pull(told)
    assert digest(told.stored) not in mirrors.vouched


def test_many_mirrors(processes: ConversionProcesses, tmp_path: Path) -> None:
    """A process may begin anew with as many mirrors as there can be, and with each layer."""
    puller = Puller(tmp_path, act=processes.convert)
    puller.pull(FIRST)
    mirrors = Mirrors(8, 0)
    puller.spoil = mirrors.before
    layers = [wrong(bytes([nth])) for nth in range(6)]
    assert puller.pull(*layers) == pulled_whole(tmp_path, *layers)
    assert all(len(asked) == 8 for asked in mirrors.mistrusted.values())
    assert len(mirrors.mistrusted) == len(layers)


def test_progress(processes: ConversionProcesses, tmp_path: Path) -> None:
    """The progress hears of the same steps, and of every byte."""
    heard = []
    for act in (convert, processes.convert):
        steps = Steps()
        act(opened(tmp_path), tmp_path / "out", Options(ScratchSpace(tmp_path), progress=steps))
        heard.append(steps.done)
    assert heard[1].pop(("convert", "out", None)) == 0
    assert heard[0] == heard[1]
    assert len(heard[0]) == 3


def broken(error: Exception, *, at_open: bool) -> Callable[[OpenedImage], OpenedImage]:
    """Return what makes the reading of an image's layers end with an error."""

    class Broken:
        def __init__(self, layer: Reader) -> None:
            self._layer = layer
            self.close = layer.close

        def read(self, size: int, /) -> bytes:
            data = self._layer.read(size)
            if not data:
                raise error
            return data

    def changed(given: OpenedImage) -> OpenedImage:
        def open_layer(wanted: Descriptor) -> Reader:
            if at_open:
                raise error
            return Broken(given.open_layer(wanted))

        return OpenedImage(given.image, open_layer)

    return changed


FAULTS: dict[str, tuple[type[SyncdError], Content, Callable[[OpenedImage], OpenedImage]]] = {
    "registry": (
        RegistryUnavailableError,
        POISON,
        broken(RegistryUnavailableError("it broke", "wait"), at_open=False),
    ),
    "registry at once": (
        RegistryUnavailableError,
        POISON,
        broken(RegistryUnavailableError("it broke", "wait"), at_open=True),
    ),
    "blob": (VerificationError, POISON, broken(VerificationError("x is wrong"), at_open=False)),
    "disk": (StorageError, POISON, broken(StorageError("full", "make room"), at_open=False)),
    "image": (ImageError, image(layer(hardlink("a", "gone"))), lambda given: given),
    "bound": (LimitError, image(layer(*map(file, "abcde"))), lambda given: given),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors(fault: str, processes: ConversionProcesses, tmp_path: Path) -> None:
    """An error keeps its type, its sentences and whether it may pass, and leaves nothing."""
    kind, content, changed = FAULTS[fault]
    given = changed(opened(tmp_path, content))
    told = []
    (tmp_path / "work").mkdir()
    for act in (convert, processes.convert):
        options = Options(ScratchSpace(tmp_path / "work"), limits=Limits(entries=4))
        with pytest.raises(SyncdError) as raised:
            act(given, tmp_path / "work" / "out", options)
        told.append((type(raised.value), str(raised.value), raised.value.temporary))
    assert told[0] == told[1]
    assert told[0][0] is kind
    assert list((tmp_path / "work").iterdir()) == []


DEATHS: dict[Main, str] = {
    poisoned.killed: "was killed (SIGKILL), most likely since memory ran out",
    poisoned.crashed: "was killed by a signal (SIGSEGV)",
    poisoned.ended: "ended with status 3",
}


@pytest.mark.parametrize("main", DEATHS)
def test_death(main: Main, tmp_path: Path) -> None:
    """A process that dies fails its own job, and says how; place and memory are given back."""
    capacity = Capacity(1, Limits().memory)
    options = Options(ScratchSpace(tmp_path), capacity=capacity)
    with going_wrong(main) as processes:
        with pytest.raises(ConversionDiedError) as told:
            processes.convert(opened(tmp_path / "1", POISON), tmp_path / "bad", options)
        assert DEATHS[main] in told.value.what
        assert told.value.temporary
        assert (capacity.held, capacity._working) == (0, 0)
        processes.convert(opened(tmp_path / "2"), tmp_path / "good", options)
        assert (tmp_path / "good").stat().st_size


def test_memory_beyond_the_bound(tmp_path: Path) -> None:
    """A process that takes more memory than was counted is refused it, and the job says so."""
    options = Options(ScratchSpace(tmp_path), limits=Limits(memory=64 << 20))
    with (
        going_wrong(poisoned.hungry) as processes,
        pytest.raises(LimitError, match=r"raise limits\.memory .* MemoryMax"),
    ):
        processes.convert(opened(tmp_path, POISON), tmp_path / "out", options)


def test_what_the_kernel_is_told(tmp_path: Path) -> None:
    """The kernel bounds a process's memory, kills it before all others, and hides its memory."""
    options = Options(ScratchSpace(tmp_path), limits=Limits(memory=100 << 20))
    with going_wrong(poisoned.restricted) as processes, pytest.raises(ConversionDiedError):
        processes.convert(opened(tmp_path, POISON), tmp_path / "out", options)
    limits = json.loads((tmp_path / "limits").read_text())
    beyond = limits["data"] - (100 << 20) - UNCOUNTED
    assert 0 < beyond < 64 << 20
    assert limits["adjustment"] == 1000
    assert limits["dumpable"] == 0


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense(name: str, tmp_path: Path) -> None:
    """Whatever a process says, it fails its own job only, and takes nothing of others."""
    capacity = Capacity(2, Limits().memory)
    options = Options(ScratchSpace(tmp_path), capacity=capacity)
    with going_wrong(poisoned.talking) as processes, capacity.share(100, lambda: None) as others:
        with pytest.raises(ConversionDiedError, match="nonsense") as told:
            processes.convert(opened(tmp_path, POISON), tmp_path / name, options)
        assert str(told.value).isprintable()
        assert (capacity.held, others.held) == (100, 100)
        assert capacity._working == 0


def test_fault(tmp_path: Path) -> None:
    """A fault in syncd itself is told as such."""
    with (
        going_wrong(poisoned.faulty) as processes,
        pytest.raises(RuntimeError, match=r"KeyError\('a fault'"),
    ):
        processes.convert(
            opened(tmp_path, POISON), tmp_path / "out", Options(ScratchSpace(tmp_path))
        )


@pytest.mark.parametrize(
    ("main", "kind", "words"),
    [
        (poisoned.threadless, NoProcessError, r"no thread can be started .*TasksMax"),
        (poisoned.crowded, LimitError, r"raise limits\.memory"),
    ],
)
def test_no_thread(main: Main, kind: type[SyncdError], words: str, tmp_path: Path) -> None:
    """A thread that does not start is for lack of memory only where there is none left."""
    options = Options(ScratchSpace(tmp_path), limits=Limits(memory=64 << 20))
    with going_wrong(main) as processes, pytest.raises(kind, match=words):
        processes.convert(opened(tmp_path, POISON), tmp_path / "out", options)


class HandClock(Silence):
    """A clock that stands until a test moves it; as a progress it counts the looks at a process."""

    def __init__(self) -> None:
        self._now = 0.0
        self._looks = 0

    def monotonic(self) -> float:
        return self._now

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        def advance(amount: int) -> None:
            self._looks += step == "convert"

        return advance

    def move(self, seconds: float) -> None:
        """Move on, and wait until the process was looked at then."""
        looks, self._now = self._looks, self._now + seconds
        until(lambda: self._looks > looks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """Give the clock by which processes are found silent."""
    made = HandClock()
    monkeypatch.setattr("syncd.convert.isolation.time", made)
    return made


def test_silence(clock: HandClock, tmp_path: Path) -> None:
    """A process that hangs is ended after a quarter of an hour, and its job says so."""
    given, options = opened(tmp_path, POISON), Options(ScratchSpace(tmp_path), progress=clock)
    with ThreadPoolExecutor(1) as thread, going_wrong(poisoned.hanging) as processes:
        running = thread.submit(processes.convert, given, tmp_path / "out", options)
        pid = hanging_below(tmp_path)
        clock.move(SILENT_MAX - 1)
        assert not is_gone(pid)
        clock.move(2)
        with pytest.raises(ConversionDiedError, match="no sign of life for 901 s"):
            running.result(20)
        assert is_gone(pid)


def test_who_is_kept_waiting(
    clock: HandClock,
    processes: ConversionProcesses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that waits for a place to work in, or for bytes, may be silent for ever."""
    given, capacity = opened(tmp_path), Capacity(1, Limits().memory)
    asked, wanted, served = (threading.Event() for _ in range(3))
    take_place = _CountedShare.take_place

    def asking(share: _CountedShare, alive: Alive) -> None:
        asked.set()
        take_place(share, alive)

    def slowly(layer: Descriptor) -> Reader:
        wanted.set()
        served.wait(20)
        return given.open_layer(layer)

    options = Options(ScratchSpace(tmp_path), capacity=capacity, progress=clock)
    with ThreadPoolExecutor(1) as thread, capacity.share(0, lambda: None) as other:
        with other.working():
            monkeypatch.setattr(_CountedShare, "take_place", asking)
            slow = OpenedImage(given.image, slowly)
            running = thread.submit(processes.convert, slow, tmp_path / "out", options)
            assert asked.wait(20)
            clock.move(2 * SILENT_MAX)
        assert wanted.wait(20)
        clock.move(2 * SILENT_MAX)
        served.set()
        assert running.result(20).size


@pytest.mark.parametrize("main", [poisoned.hanging, poisoned.chattering, poisoned.killed])
def test_stop(main: Main, tmp_path: Path) -> None:
    """A conversion that is to stop ends soon, and its process, whatever the process does."""
    stopping = threading.Event()

    class Stopping(Silence):
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            def advance(amount: int) -> None:
                if stopping.is_set():
                    raise StoppedError("the daemon is stopping")

            return advance

    options = Options(ScratchSpace(tmp_path), progress=Stopping())
    given, pid = opened(tmp_path, POISON), 0
    marks = main is not poisoned.killed
    if not marks:
        given = OpenedImage(given.image, lambda _: Forever(stopping))
    with ThreadPoolExecutor(1) as thread, going_wrong(main) as processes:
        running = thread.submit(processes.convert, given, tmp_path / "out", options)
        if marks:
            pid = hanging_below(tmp_path)
        stopping.set()
        with pytest.raises(StoppedError):
            running.result(20)
    assert not pid or is_gone(pid)


class Forever:
    """A layer whose registry says nothing until the end of the daemon."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def read(self, size: int, /) -> bytes:
        self._stopping.wait()
        raise StoppedError("the daemon is stopping")

    def close(self) -> None:
        """Do nothing."""


def test_death_of_the_server(tmp_path: Path) -> None:
    """A conversion whose process is lost with its server fails, and the next one has a new one."""
    capacity = Capacity(1, Limits().memory)
    options = Options(ScratchSpace(tmp_path), capacity=capacity)
    with ThreadPoolExecutor(1) as thread, going_wrong(poisoned.hanging) as processes:
        given = opened(tmp_path, POISON)
        running = thread.submit(processes.convert, given, tmp_path / "out", options)
        hanging_below(tmp_path)
        # The process itself counts, beside what it asked for.
        assert capacity.held >= BASE + PROCESS + (1 << 20)
        server = processes._server.pid
        assert server is not None
        os.kill(server, 9)
        with pytest.raises(NoProcessError, match="lost"):
            running.result(20)
        assert processes.convert(opened(tmp_path), tmp_path / "out", options).size


def test_memory_that_others_hold(processes: ConversionProcesses, tmp_path: Path) -> None:
    """A process that others leave too little memory is ended, and another begins when they end."""
    capacity, steps = Capacity(2, Limits().memory), Steps()
    options = Options(ScratchSpace(tmp_path), capacity=capacity, progress=steps)
    room = PROCESS + (10 << 20)
    given = opened(tmp_path)
    with ThreadPoolExecutor(1) as thread:
        with capacity.share(Limits().memory.maximum - room, lambda: None):
            running = thread.submit(processes.convert, given, tmp_path / "out", options)
            end = time.monotonic() + 20
            while not any(step == "wait" for step, *_ in list(steps.done)):
                assert not running.done()
                assert time.monotonic() < end
                time.sleep(0.01)
            assert capacity.held == Limits().memory.maximum - room
        assert running.result(20).size
    assert capacity.held == 0
