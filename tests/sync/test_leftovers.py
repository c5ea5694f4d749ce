"""What `leftovers` promises: a publication that died half-way is finished, or nothing is left."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import PublishError
from syncd.oci.reference import Digest
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.leftovers import Leftovers
from syncd.targets import DirectoryTarget, Volume
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.sync.test_ledger import OTHER, REFERENCE, TEMPLATE

CONTENT = b"a finished template"
MEANT = replace(
    TEMPLATE,
    file_digest=Digest.of(CONTENT),
    size=len(CONTENT),
    volumes=(),
    pinned=False,
)
VOLUMES = (f"t:vztmpl/{MEANT.name}",)


@dataclass
class Place:
    """A target of one folder, and the ledger of what was meant to be there."""

    ledger: Ledger
    target: DirectoryTarget
    folder: Path

    def settle(self) -> list[str]:
        """Look after what was left; return the events of the log."""
        with capture_logs() as logs:
            Leftovers(self.ledger).settle(self.target)
        return [line["event"] for line in logs]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give an empty folder, and a ledger that meant to publish one template there."""
    folder = tmp_path / "storage" / "template" / "cache"
    folder.mkdir(parents=True)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.record(replace(TEMPLATE, name="before", pinned=False))
        ledger.intend(MEANT)
        ledger.record(replace(TEMPLATE, name="after", pinned=False))
        yield Place(ledger, DirectoryTarget("t", tmp_path / "storage"), folder)


def test_killed_behind_the_file(place: Place) -> None:
    """A whole file becomes a template, so that retention sees it; it is the oldest one."""
    (place.folder / MEANT.name).write_bytes(CONTENT)
    assert place.settle() == ["leftover finished"]
    templates = place.ledger.templates(REFERENCE, "t")
    assert [template.name for template in templates] == ["after", "before", MEANT.name]
    assert templates[2] == replace(MEANT, volumes=VOLUMES)
    assert place.settle() == []


async def test_failed_behind_the_file(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hidden part could not be removed, the next job of the image does that."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path, missing_ok)

    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", refuse)
            with pytest.raises(PublishError):
                await harness.bring()
        assert len(harness.templates) == 2
        assert (await harness.bring()).result is Result.UNCHANGED
        (template,) = harness.templates
        assert not template.name.startswith(".")


def test_killed_before_the_file(place: Place) -> None:
    """Where there is no file, the line goes, and a hidden part of the file with it."""
    part = place.folder / f".{MEANT.name}.part"
    part.write_bytes(CONTENT[:5])
    other = place.folder / ".other.tar.zst.part"
    other.touch()
    assert place.settle() == ["leftover part removed", "leftover struck"]
    assert list(place.folder.iterdir()) == [other]
    assert place.ledger.made("t", MEANT.name) is None
    assert [template.name for template in place.ledger.templates()] == ["after", "before"]


@pytest.mark.parametrize("content", [CONTENT[:5], b"planted by somebody"])
def test_another_file(place: Place, content: bytes) -> None:
    """A file of another size or content is no template of syncd; it is told, and mended later."""
    (place.folder / MEANT.name).write_bytes(content)
    assert len(CONTENT) == len(b"planted by somebody")
    assert place.settle() == ["leftover is no whole file"]
    assert MEANT not in place.ledger.templates()
    assert place.ledger.made("t", MEANT.name) == MEANT
    assert (place.folder / MEANT.name).read_bytes() == content


@pytest.mark.parametrize(
    ("content", "event"),
    [(CONTENT[:5], "leftover is no whole file"), (CONTENT, "leftover finished")],
)
def test_a_file_out_of_reach(
    place: Place, monkeypatch: pytest.MonkeyPatch, content: bytes, event: str
) -> None:
    """Of a file that cannot be read here, the listed size decides."""
    monkeypatch.setattr(DirectoryTarget, "local", lambda *_: None)
    (place.folder / MEANT.name).write_bytes(content)
    assert place.settle() == [event]


@pytest.mark.parametrize("there", [True, False])
def test_what_a_job_publishes_just_now(place: Place, there: bool) -> None:
    """While a job of the reference runs its line stays, however the file looks."""
    if there:
        (place.folder / MEANT.name).write_bytes(CONTENT)
    job = SyncJob(REFERENCE, Cause.CLI)
    place.ledger.accept([job])
    place.ledger.start(job.id)
    assert place.settle() == []
    assert place.ledger.made("t", MEANT.name) == MEANT
    place.ledger.finish(job.id, Outcome(Result.FAILED, "no"))
    assert place.settle() == ["leftover finished" if there else "leftover struck"]


@pytest.mark.parametrize("there", [True, False])
def test_a_job_that_takes_it_up_meanwhile(place: Place, there: bool) -> None:
    """A line that was written again since it was read is not changed."""
    (stale,) = place.ledger.intentions("t")
    place.ledger.intend(MEANT)
    act = place.ledger.strike if there else lambda one: place.ledger.complete(one, VOLUMES)
    assert not act(stale)
    (fresh,) = place.ledger.intentions("t")
    assert fresh.seq > stale.seq
    place.ledger.record(replace(MEANT, volumes=VOLUMES))
    assert not act(fresh)
    assert place.ledger.templates(REFERENCE)[0].name == MEANT.name


def test_a_part_that_is_being_written(place: Place) -> None:
    """A hidden file that a living process holds is left alone."""
    part = place.folder / f".{MEANT.name}.part"
    part.write_bytes(CONTENT[:5])
    held = os.open(part, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert "leftover part removed" not in place.settle()
    assert part.exists()
    os.close(held)


def test_other_targets(place: Place) -> None:
    """What was meant for another target, or for another tag, is not mixed up with this one."""
    place.ledger.intend(replace(MEANT, target="u"))
    place.ledger.intend(replace(MEANT, reference=OTHER))
    (place.folder / MEANT.name).write_bytes(CONTENT)
    assert place.settle() == ["leftover finished", "leftover finished"]
    assert len(place.ledger.intentions("u")) == 1
    assert place.ledger.templates(OTHER, "t") == [replace(MEANT, reference=OTHER, volumes=VOLUMES)]


def test_a_target_that_cannot_be_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is away keeps its lines until it can be asked."""

    def away(_: object) -> list[Volume]:
        raise PublishError("away")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryTarget, "volumes", away)
        assert place.settle() == ["leftover not looked at"]
    assert place.ledger.made("t", MEANT.name) == MEANT
    assert place.settle() == ["leftover struck"]


PUBLISHING = """
import errno, os, sys
from dataclasses import replace
from pathlib import Path
from syncd.oci.reference import Digest
from syncd.progress import Silence
from syncd.sync.ledger import Ledger
from syncd.targets import DirectoryTarget
from tests.sync.test_leftovers import MEANT

def elsewhere(*_):
    raise OSError(errno.EXDEV, "as between two file systems")

if sys.argv[2] == "copied":
    Path.hardlink_to = os.copy_file_range = elsewhere
folder = Path(sys.argv[1])
ledger, target = Ledger(folder / "ledger.sqlite"), DirectoryTarget("t", folder / "storage")
for number in range(1000):
    source = folder / f"{os.getpid()}-{number}"
    source.write_bytes(os.urandom(1 << 20))
    digest = Digest.of(source.read_bytes())
    name = f"{os.getpid()}-{number}.tar.zst"
    template = replace(MEANT, name=name, file_digest=digest, size=1 << 20)
    ledger.intend(template)
    print("intended", flush=True)
    (volume,) = target.publish(source, name, digest, Silence())
    ledger.record(replace(template, volumes=(volume.volid,)))
"""


@pytest.mark.parametrize("how", ["linked", "copied"])
def test_killed_at_random_instants(place: Place, tmp_path: Path, how: str) -> None:
    """After each kill the ledger names exactly the files that are there, none hidden."""
    chance, left, kills = random.Random(13), 0, 0
    assert place.settle() == ["leftover struck"]
    for template in place.ledger.templates():
        place.ledger.forget("t", template.name)
    while kills < 6 or (not left and kills < 60):
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHING, tmp_path, how], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 5)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.01))
            os.kill(process.pid, signal.SIGKILL)
        kills += 1
        left += len(place.ledger.intentions("t"))
        place.settle()
        files = {path.name: path.stat().st_size for path in place.folder.iterdir()}
        assert files == {one.name: one.size for one in place.ledger.templates()}
        assert place.ledger.intentions("t") == []
    assert left
