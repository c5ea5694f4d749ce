"""What goes wrong in the world, done to real parts: the job says so, and the daemon goes on.

Each fault strikes after a first version of an image was published and a second one was pushed.
The job about the second ends `failed` with one sentence that says what and where, the first
template is untouched, nothing half-done lies beside it; and when the fault has passed, the next
event publishes the second version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import image
from tests.e2e.command import files_below, wait_for
from tests.e2e.conftest import Image
from tests.e2e.daemon import Job, Syncd
from tests.e2e.image import Layout
from tests.e2e.machine import Disk
from tests.e2e.registry import Registry
from tests.e2e.relay import Relay

USER, PASSWORD = "robot", "pass:word"


@dataclass(frozen=True)
class World:
    """A daemon that has published the first version of an image whose second one is pushed now."""

    registry: Registry
    disk: Disk
    daemon: Syncd
    reference: str
    second: Layout

    @property
    def new_layer(self) -> str:
        """The digest of the layer that only the second version has."""
        return self.second.layers[-1]


Fault = Callable[[World], AbstractContextManager[str]]


@pytest.fixture
def world(tmp_path: Path, small: Image) -> Iterator[World]:
    """Publish a first version, push a second one."""
    second = Layout(tmp_path / "second")
    image.fetch(small.reference, second)
    (tmp_path / "added" / "srv").mkdir(parents=True)
    (tmp_path / "added" / "srv" / "added").write_text("by the second version\n" * 1000)
    image.add_layer(second, image.pack(tmp_path / "added", tmp_path / "added.tar"))
    with Registry(tmp_path / "registry") as registry, Disk(tmp_path / "disk") as disk:
        reference = f"{registry.address}/acme/moving:latest"
        with Syncd(tmp_path / "syncd", [reference], storage=disk.folder) as daemon:
            small.push(reference)
            assert_published(daemon.sync(reference))
            second.push(reference)
            yield World(registry, disk, daemon, reference, second)


@contextmanager
def registry_down(world: World) -> Iterator[str]:
    world.registry.stop()
    yield world.registry.address
    world.registry.start()


@contextmanager
def blob_changed(world: World) -> Iterator[str]:
    stored = world.registry.blob_file(world.new_layer)
    content = stored.read_bytes()
    stored.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    yield world.new_layer
    stored.write_bytes(content)


@contextmanager
def blob_cut(world: World) -> Iterator[str]:
    stored = world.registry.blob_file(world.new_layer)
    content = stored.read_bytes()
    stored.write_bytes(content[:-9])
    yield world.new_layer
    stored.write_bytes(content)


@contextmanager
def blob_gone(world: World) -> Iterator[str]:
    stored = world.registry.blob_file(world.new_layer)
    content = stored.read_bytes()
    stored.unlink()
    yield world.new_layer
    stored.write_bytes(content)


@contextmanager
def layer_no_tar(world: World) -> Iterator[str]:
    wrong, text = Layout(world.daemon.folder / "wrong"), world.daemon.folder / "no.tar"
    text.write_text("This is a text, and not the archive that a layer must be.\n" * 100)
    image.create(wrong, text)
    wrong.push(world.reference)
    yield wrong.layers[0]
    world.second.push(world.reference)


@contextmanager
def disk_full(world: World) -> Iterator[str]:
    with world.disk.filled():
        yield str(world.disk.folder)


@contextmanager
def disk_read_only(world: World) -> Iterator[str]:
    with world.disk.read_only():
        yield str(world.disk.folder)


@pytest.mark.parametrize(
    "fault",
    [
        registry_down,
        blob_changed,
        blob_cut,
        blob_gone,
        layer_no_tar,
        disk_full,
        disk_read_only,
    ],
)
def test_fault(world: World, fault: Fault) -> None:
    """A fault fails the job with its place named, and spares what was published before."""
    daemon = world.daemon
    (first,) = daemon.templates
    before = first.stat()
    with fault(world) as place:
        files = files_below(daemon.storage)
        assert_failed(daemon, world.reference, place)
        assert files_below(daemon.storage) == files
        assert first.stat() == before
    assert_published(daemon.sync(world.reference))
    assert len(daemon.templates) == 2
    assert first.stat() == before


def test_unknown_image(registry: Registry, tmp_path: Path) -> None:
    """A reference that the registry does not know fails its job, which names the reference."""
    reference = f"{registry.address}/acme/nowhere:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        assert_failed(daemon, reference, reference)
        assert files_below(daemon.storage) == set()


@pytest.fixture(scope="module")
def closed(scratch: Path) -> Iterator[Registry]:
    """Serve a registry that gives nothing without a name and a password."""
    with Registry(scratch / "closed", USER, PASSWORD) as registry:
        yield registry


def test_password(closed: Registry, small: Image, tmp_path: Path) -> None:
    """The configured name and the password of its file open a registry that asks for them."""
    reference = f"{closed.address}/acme/open:latest"
    with Syncd(tmp_path / "syncd", [reference], USER, PASSWORD) as daemon:
        small.push(reference, f"--dest-creds={closed.credentials}")
        assert_published(daemon.sync(reference))
        assert PASSWORD not in daemon.log.read_text()


@pytest.mark.parametrize(("user", "password"), [(USER, "not-the-password"), ("", "")])
def test_wrong_password(
    closed: Registry, small: Image, tmp_path: Path, user: str, password: str
) -> None:
    """Without the right password the job fails in one sentence; a new file's one is taken next."""
    reference = f"{closed.address}/acme/shut:latest"
    with Syncd(tmp_path / "syncd", [reference], user, password) as daemon:
        small.push(reference, f"--dest-creds={closed.credentials}")
        assert_failed(daemon, reference, closed.address)
        if user:
            assert password not in daemon.log.read_text()
            (daemon.folder / "registry-password").write_text(f"{PASSWORD}\n")
            assert_published(daemon.sync(reference))


def test_broken_connection(base: Image, registry: Registry, tmp_path: Path) -> None:
    """A layer whose connection breaks off is read on from there, and not from its beginning."""
    relay = Relay(registry.address, cuts=[20 << 20, 10 << 20])
    reference = f"{relay.address}/acme/far:latest"
    with relay.open(), Syncd(tmp_path / "syncd", [reference]) as daemon:
        base.push(f"{registry.address}/acme/far:latest")
        mark = registry.mark()
        assert_published(daemon.sync(reference))
        assert relay.cuts_left == 0
        assert relay.passed < base.layout.size + (1 << 20)
    resumed = registry.requests("GET", base.layout.layers[0], mark)
    assert [request.status for request in resumed] == [200, 206, 206]


def reading(daemon: Syncd, registry: Registry, mark: int) -> bool:
    """Say whether a blob was read."""
    return bool(registry.blobs(mark))


def writing(daemon: Syncd, registry: Registry, mark: int) -> bool:
    """Say whether the template is being written, out of its readers' sight."""
    return bool(files_below(daemon.spool))


@pytest.mark.parametrize("moment", [reading, writing])
def test_killed(
    base: Image,
    registry: Registry,
    tmp_path: Path,
    moment: Callable[[Syncd, Registry, int], bool],
) -> None:
    """A job cut short by SIGKILL is done after the next start, and leaves no remains."""
    reference = f"{registry.address}/acme/killed-{moment.__name__}:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = base.push(reference)
        mark = registry.mark()
        job = daemon.push_event(reference)
        wait_for("the moment", lambda: moment(daemon, registry, mark), timeout=60, pause=0.002)
        daemon.kill()
        assert files_below(daemon.storage) == set()
        daemon.start()
        assert_published(daemon.finished(job))
        assert_only(daemon, pushed)


def test_killed_when_placed(small: Image, registry: Registry, tmp_path: Path) -> None:
    """A template that was placed when SIGKILL came is known after the next start."""
    reference = f"{registry.address}/acme/killed-when-placed:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = small.push(reference)
        job = daemon.push_event(reference)
        wait_for("the template", lambda: daemon.templates, timeout=60, pause=0.001)
        daemon.kill()
        daemon.start()
        assert daemon.finished(job)["outcome"] in ("published", "unchanged")
        assert pushed.template_name in daemon.run("status", "--json").stdout
        mark = registry.mark()
        assert daemon.sync(reference)["outcome"] == "unchanged"
        assert registry.blobs(mark) == []
        assert_only(daemon, pushed)


def test_stopped(base: Image, registry: Registry, tmp_path: Path) -> None:
    """A job that SIGTERM meets is done, at the latest after the next start."""
    reference = f"{registry.address}/acme/stopped:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = base.push(reference)
        mark = registry.mark()
        job = daemon.push_event(reference)
        wait_for("a blob's reading", lambda: registry.blobs(mark), timeout=60, pause=0.002)
        daemon.stop()
        daemon.start()
        assert_published(daemon.finished(job))
        assert_only(daemon, pushed)


def assert_published(job: Job) -> None:
    """Fail with all that is known of the job, unless it published a template."""
    assert job["outcome"] == "published", job["message"]


def assert_only(daemon: Syncd, published: Image) -> None:
    """Fail if the daemon's storage, spool or cache holds remains of an unfinished job."""
    assert files_below(daemon.storage) == {f"template/cache/{published.template_name}"}
    assert files_below(daemon.spool) == set()
    # An empty file is a lock.
    held = {name for name in files_below(daemon.cache) if (daemon.cache / name).stat().st_size}
    assert held <= files_below(published.layout.folder)


def assert_failed(daemon: Syncd, reference: str, *said: str) -> None:
    """Sync `reference`; the job must fail with one line that has all of `said`, syncd go on."""
    job = daemon.sync(reference, timeout=180)
    assert job["outcome"] == "failed", job["message"]
    assert "\n" not in job["message"].strip()
    assert "Traceback" not in job["message"]
    assert [part for part in said if part not in job["message"]] == [], job["message"]
    assert daemon.ask("GET", "/healthz").status == 200
