"""The images and the daemon that the end-to-end tests share; each is made once, when asked for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e import image
from tests.e2e.command import SCRATCH, run
from tests.e2e.daemon import Job, Syncd
from tests.e2e.debian import debian_root
from tests.e2e.image import Layout
from tests.e2e.registry import Registry

BASE_PACKAGES = ("attr", "dbus", "libcap2-bin", "systemd-sysv")

BASE = """\
FROM scratch
ADD root.tar /
RUN mkdir /srv/image && cd /srv/image \\
 && echo shared >first && ln first second && ln first third \\
 && cp /bin/true ping && setcap cap_net_raw+ep ping \\
 && cp /bin/true su && chmod 4755 su && mkdir spool && chmod 3777 spool \\
 && echo owned >owned && chown 54321:65534 owned \\
 && touch "$(printf 'caf\\351')" && ln -s ../../etc/passwd climbing && mkfifo queue \\
 && mkdir -p kept opaque/deep turned && touch kept/old opaque/deep/old turned/old && echo a >turn
CMD ["/sbin/init"]
"""

APP = """\
ARG BASE
FROM $BASE
RUN cd /srv/image && rm first && rm -r opaque && mkdir opaque && echo new >opaque/new \\
 && rm kept/old && touch kept/new && rm -r turned && echo file >turned \\
 && rm turn && mkdir turn && echo directory >turn/inside && echo changed >>owned
RUN cd /srv/image && echo again >first && chmod 0700 kept && rm -r /usr/share/doc /srv/tar/removed
"""


@dataclass(frozen=True)
class Image:
    """An image that a registry serves as `reference`, and the same one as a layout on disk."""

    reference: str
    layout: Layout
    rootfs: Path

    def push(self, reference: str, *options: str) -> Image:
        """Push the image under another name as well, with skopeo's options; return it as that."""
        self.layout.push(reference, *options)
        return replace(self, reference=reference)

    @property
    def template_name(self) -> str:
        """The name under which the image's template must be found."""
        name = re.sub("[/:]", "_", self.reference)
        return f"{name}_{self.layout.config.removeprefix('sha256:')[:12]}.tar.zst"


@dataclass(frozen=True)
class Synced:
    """What the first sync of an image brought: the job, its template, the blobs it read."""

    image: Image
    job: Job
    template: Path
    blobs: list[str]


@pytest.fixture(scope="session", autouse=True)
def scratch() -> Path:
    """Make the folder of this run; the one before could be looked at until now."""
    run("rm", "-rf", "--one-file-system", SCRATCH)
    SCRATCH.mkdir(parents=True)
    return SCRATCH


@pytest.fixture(scope="session")
def registry(scratch: Path) -> Iterator[Registry]:
    """Serve a registry that anyone may use."""
    with Registry(scratch / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def odd_layer(scratch: Path) -> Path:
    """Write a layer of what GNU tar keeps, and buildah would not."""
    folder = scratch / "odd" / "srv" / "tar"
    folder.mkdir(parents=True)
    noted, capable = folder / "noted", folder / "capable"
    noted.write_text("with an attribute\n")
    os.setxattr(noted, "user.note", b"any \x00 bytes \xff")
    os.chown(noted, 1000, 60_000)
    os.utime(noted, ns=(0, 1_234_567_890_123_456_789))
    (folder / "another-name").hardlink_to(noted)
    shutil.copy("/bin/true", capable)
    capable.chmod(0o755)
    run("setcap", "cap_net_bind_service+ep", capable)
    long = folder.joinpath(*(letter * 200 for letter in "ab"))
    long.mkdir(parents=True)
    (long / ("c" * 255)).write_text("far away\n")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe latin \xe9")).write_text("named in bytes\n")
    (folder / "removed").mkdir()
    (folder / "removed" / "too").touch()
    (folder / "absolute").symlink_to("/etc/hostname")
    os.utime(folder, ns=(0, 981_173_106_789_012_345))
    return image.pack(scratch / "odd", scratch / "odd.tar")


@pytest.fixture(scope="session")
def extreme_layer(scratch: Path) -> Path:
    """Write a layer of what is right, but not for everyone.

    An unprivileged container has no such owner, GNU tar warns of a time before 1970, and buildah
    1.28 does not reproduce a layer with a sparse file.
    """
    folder = scratch / "extreme" / "srv"
    folder.mkdir(parents=True)
    with (folder / "sparse").open("wb") as sparse:
        sparse.seek(8 << 20)
        sparse.write(b"end")
    foreign = folder / "foreign"
    foreign.touch()
    os.chown(foreign, 4_000_000_000, 123_456)
    os.utime(foreign, ns=(0, -1_876_543_211))
    return image.pack(scratch / "extreme", scratch / "extreme.tar")


@pytest.fixture(scope="session")
def small(scratch: Path, registry: Registry, odd_layer: Path, extreme_layer: Path) -> Image:
    """Push an image of the odd layers alone."""
    layout = Layout(scratch / "small")
    image.create(layout, odd_layer, extreme_layer)
    return _pushed(layout, f"{registry.address}/acme/small:latest")


@pytest.fixture(scope="session")
def base(scratch: Path, registry: Registry, odd_layer: Path) -> Image:
    """Push Debian 13 with systemd, a layer of odd files by buildah and one by GNU tar."""
    folder, layout = scratch / "base.build", Layout(scratch / "base")
    folder.mkdir()
    (folder / "root.tar").hardlink_to(debian_root(BASE_PACKAGES))
    (folder / "Containerfile").write_text(BASE)
    reference = f"{registry.address}/acme/images/base:latest"
    image.build(folder, reference)
    image.fetch(reference, layout)
    image.add_layer(layout, odd_layer)
    return _pushed(layout, reference)


@pytest.fixture(scope="session")
def app(scratch: Path, registry: Registry, base: Image) -> Image:
    """Push an image on top of `base` that removes, replaces and adds, in two layers."""
    folder, layout = scratch / "app.build", Layout(scratch / "app")
    folder.mkdir()
    (folder / "Containerfile").write_text(APP)
    reference = f"{registry.address}/acme/images/app:latest"
    image.build(folder, reference, BASE=base.reference)
    image.fetch(reference, layout)
    return Image(reference, layout, layout.unpack(scratch / "app.unpacked"))


@pytest.fixture(scope="session")
def daemon(scratch: Path, registry: Registry) -> Iterator[Syncd]:
    """Run a daemon that watches three images, of which there is none yet."""
    watched = [_live(registry, name) for name in ("images/base", "images/app", "small")]
    with Syncd(scratch / "syncd", watched) as running:
        yield running


@pytest.fixture(scope="session")
def synced_base(daemon: Syncd, registry: Registry, base: Image) -> Synced:
    """Sync `base` with an empty cache."""
    return _first_sync(daemon, registry, base, "images/base")


@pytest.fixture(scope="session")
def synced_app(daemon: Syncd, registry: Registry, app: Image, synced_base: Synced) -> Synced:
    """Sync `app` after `base`."""
    return _first_sync(daemon, registry, app, "images/app")


@pytest.fixture(scope="session")
def synced_small(daemon: Syncd, registry: Registry, small: Image) -> Synced:
    """Sync `small`, which shares a layer with `base`."""
    return _first_sync(daemon, registry, small, "small")


@pytest.fixture
def synced(request: pytest.FixtureRequest) -> Synced:
    """Return the synced image that the test's table names."""
    chosen: Synced = request.getfixturevalue(request.param)
    return chosen


def _pushed(layout: Layout, reference: str) -> Image:
    layout.push(reference)
    return Image(reference, layout, layout.unpack(layout.folder.with_suffix(".unpacked")))


def _live(registry: Registry, name: str) -> str:
    return f"{registry.address}/live/{name}:latest"


def _first_sync(daemon: Syncd, registry: Registry, image: Image, name: str) -> Synced:
    """Push an image that the daemon watches, and tell it."""
    pushed = image.push(_live(registry, name))
    before, mark = set(daemon.templates), registry.mark()
    job = daemon.sync(pushed.reference)
    assert job["outcome"] == "published", job["message"]
    (template,) = set(daemon.templates) - before
    return Synced(pushed, job, template, registry.blobs(mark))
