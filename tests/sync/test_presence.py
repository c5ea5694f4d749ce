"""What `sync.presence` promises: one answer to whether an image is published, and no change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.config.settings import ImageSettings
from syncd.errors import PublishError
from syncd.formats import Format
from syncd.oci.manifest import Descriptor, Image, Manifest, Reader
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest, Platform, Reference
from syncd.progress import Progress, Silence, Stoppable
from syncd.sync.context import SyncContext
from syncd.sync.ledger import Ledger
from syncd.sync.presence import Held, Presence, PresenceQuery
from syncd.sync.proof import Proof, ProofState
from syncd.sync.template import Template
from syncd.targets.target import CheckResult, Volume

TOP, MANIFEST, CONFIG, FILE = (Digest("sha256", char * 64) for char in "abcd")
AMD64 = Platform("linux", "amd64")
LATEST = Reference.parse("a.b/c/d:latest")
TAGGED = Descriptor("", TOP, 1)
IMAGE = Image(TOP, Manifest(b"", "", TAGGED, ()), MANIFEST, CONFIG, AMD64, (), {}, b"")
NAME = f"a.b_c_d_latest_{'c' * 12}.tar.zst"
ROW = Template(
    name=NAME,
    target="near",
    reference=LATEST,
    format=Format.ROOTFS,
    platform=AMD64,
    digest=TOP,
    manifest_digest=MANIFEST,
    config_digest=CONFIG,
    diff_ids=(),
    file_digest=FILE,
    size=10,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    volumes=(f"near:vztmpl/{NAME}",),
    syncd_version="0",
)


@dataclass
class Shelf:
    """A target that lists what it is told to."""

    name: str
    files: dict[str, int] = field(default_factory=dict)
    away: bool = False

    def format(self) -> Format:
        """Return the format."""
        return Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return what lies here."""
        return [Volume(f"{self.name}:vztmpl/{file}", size) for file, size in self.files.items()]

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return this place when it lacks the file."""
        if self.away:
            raise PublishError("away")
        found = self.files.get(name)
        return [] if found is not None and size in (None, found) else [self.name]

    def local(self, name: str) -> Path | None:
        """Return None: nothing can be read."""

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Fail: nobody may publish while asking."""
        raise AssertionError("asking changed something")

    def remove_part(self, name: str) -> bool:
        """Fail: nobody may remove while asking."""
        raise AssertionError("asking changed something")

    def delete(self, volume: Volume) -> None:
        """Fail: nobody may delete while asking."""
        raise AssertionError("asking changed something")

    def check(self) -> list[CheckResult]:
        """Return nothing."""
        return []


class Nowhere:
    """A repository that must not be asked."""

    def resolve(self, reference: Reference) -> Descriptor:
        """Fail."""
        raise AssertionError("the registry was asked")

    def tagged(self, reference: Reference) -> bytes:
        """Fail."""
        raise AssertionError("the registry was asked")

    def tags(self) -> list[str]:
        """Fail."""
        raise AssertionError("the registry was asked")

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Fail."""
        raise AssertionError("the registry was asked")

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:
        """Fail."""
        raise AssertionError("the registry was asked")

    def settle(self) -> None:
        """Fail."""
        raise AssertionError("the registry was asked")

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Fail."""
        raise AssertionError("the registry was asked")

    def document(self, wanted: Descriptor) -> bytes:
        """Fail."""
        raise AssertionError("the registry was asked")

    def ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Fail."""
        raise AssertionError("the registry was asked")

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Fail."""
        raise AssertionError("the registry was asked")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Give an empty ledger."""
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def context(*shelves: Shelf, reference: Reference = LATEST) -> SyncContext:
    """Return the context of a reference that goes to these targets."""
    return SyncContext(
        reference,
        ImageSettings(repository=reference.name),
        Nowhere(),
        shelves,
        Stoppable(Silence(), threading.Event()),
        AMD64,
    )


def ask(ledger: Ledger, *shelves: Shelf, image: Image | None = None) -> Presence:
    """Ask where the image is."""
    return PresenceQuery(ledger).ask(context(*shelves), TAGGED, image)


def test_by_digest(ledger: Ledger) -> None:
    """A template of the digest that its target lists with its size is there."""
    ledger.record(ROW)
    presence = ask(ledger, Shelf("near", {NAME: 10}))
    assert presence.everywhere
    assert presence.volumes == ROW.volumes


@pytest.mark.parametrize("files", [{}, {NAME: 9}, {"other.tar.zst": 10}])
def test_not_listed(files: dict[str, int], ledger: Ledger) -> None:
    """What the target does not list, or lists with another size, is not there."""
    ledger.record(ROW)
    for image in (None, IMAGE):
        presence = ask(ledger, Shelf("near", files), image=image)
        assert not presence.everywhere
        assert presence.volumes == ()


@pytest.mark.parametrize(
    "change",
    [
        {"digest": FILE, "manifest_digest": FILE},
        {"platform": Platform("linux", "arm64")},
        {"format": Format.OCI},
        {"reference": Reference.parse("a.b/c/d:other")},
    ],
)
def test_another_template(change: dict[str, object], ledger: Ledger) -> None:
    """A template of another digest, platform, format or tag is not the image's."""
    ledger.record(replace(ROW, **change))  # type: ignore[arg-type] # the rows are of the fields' types
    assert not ask(ledger, Shelf("near", {NAME: 10})).everywhere


def test_a_digest_under_any_tag(ledger: Ledger) -> None:
    """A reference by digest finds the template under any tag of its repository."""
    ledger.record(ROW)
    for digest, there in ((TOP, True), (MANIFEST, True), (FILE, False)):
        pinned = Reference("a.b", "c/d", None, digest)
        query = PresenceQuery(ledger).ask(
            context(Shelf("near", {NAME: 10}), reference=pinned), Descriptor("", digest, 1)
        )
        assert query.everywhere is there


def proven(state: ProofState = ProofState.OK) -> Proof:
    """Return what a job found of the file, which has 10 bytes."""
    return Proof("near", NAME, 10, FILE, state, datetime.now(UTC))


def test_a_foreign_file(ledger: Ledger) -> None:
    """A file that somebody else put there counts once it is proven and the image is read."""
    shelf = Shelf("near", {NAME: 10})
    assert not ask(ledger, shelf, image=IMAGE).everywhere
    ledger.proofs.put(proven())
    assert not ask(ledger, shelf).everywhere
    presence = ask(ledger, shelf, image=IMAGE)
    assert presence.targets == {"near": Held(ROW.volumes, None, by_name=True)}
    assert presence.everywhere


@pytest.mark.parametrize("size", [9, 11, 0])
def test_a_foreign_file_of_another_size(ledger: Ledger, size: int) -> None:
    """A file that was proven and has another size now is not there."""
    ledger.proofs.put(proven())
    assert not ask(ledger, Shelf("near", {NAME: size}), image=IMAGE).everywhere


@pytest.mark.parametrize("state", [one for one in ProofState if one is not ProofState.OK])
def test_a_file_found_wrong(ledger: Ledger, state: ProofState) -> None:
    """A file of syncd that was found cut, changed, gone or unreadable does not count."""
    ledger.record(ROW)
    ledger.proofs.put(proven(state))
    for image in (None, IMAGE):
        assert not ask(ledger, Shelf("near", {NAME: 10}), image=image).everywhere
    ledger.proofs.put(proven())
    assert ask(ledger, Shelf("near", {NAME: 10})).everywhere


def test_unfinished(ledger: Ledger) -> None:
    """A file that syncd meant to publish, and may not have finished, is nowhere yet."""
    ledger.intend(ROW)
    presence = ask(ledger, Shelf("near", {NAME: 10}), image=IMAGE)
    held = presence.targets["near"]
    assert held is not None
    assert not held.finished
    assert not presence.everywhere
    assert presence.volumes == ()


def test_one_target_lacks_it(ledger: Ledger) -> None:
    """An image that one of the targets lacks is told target by target, and not as there."""
    ledger.record(ROW)
    presence = ask(ledger, Shelf("near", {NAME: 10}), Shelf("far"), image=IMAGE)
    assert presence.targets["far"] is None
    assert presence.targets["near"] == Held(ROW.volumes, ROW)
    assert presence.volumes == ()


def test_a_target_that_is_away(ledger: Ledger) -> None:
    """A target that cannot be asked is an error, never an absence."""
    ledger.record(ROW)
    with pytest.raises(PublishError, match="away"):
        ask(ledger, Shelf("near", away=True))


def test_learning(ledger: Ledger) -> None:
    """A tag that went back to an older template makes it the newest; asking alone does not."""
    newer = replace(ROW, name="newer.tar.zst", digest=FILE, created=ROW.created + timedelta(1))
    ledger.record(ROW)
    ledger.record(newer)
    presence = ask(ledger, Shelf("near", {NAME: 10}))
    assert [row.name for row in ledger.templates()] == ["newer.tar.zst", NAME]
    held = [held for held in presence.targets.values() if held]
    PresenceQuery(ledger).learn(context(Shelf("near")), TAGGED, held)
    assert [row.name for row in ledger.templates()] == [NAME, "newer.tar.zst"]


def test_nothing_is_learnt_of_a_foreign_file(ledger: Ledger) -> None:
    """A file that syncd did not make stays out of the ledger, and so of retention."""
    ledger.proofs.put(proven())
    presence = ask(ledger, Shelf("near", {NAME: 10}), image=IMAGE)
    assert presence.everywhere
    held = [held for held in presence.targets.values() if held]
    PresenceQuery(ledger).learn(context(Shelf("near")), TAGGED, held)
    assert ledger.templates() == []
