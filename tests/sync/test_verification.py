"""What `sync.verification` promises: bad files are found, written down, and made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import PublishError
from syncd.sync.job import Result
from syncd.sync.proof import ProofState
from syncd.sync.upkeep_views import verified_json
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample


def flip(path: Path) -> None:
    """Change one byte of a file, and neither its size nor its time."""
    before = path.stat()
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_a_symlink(path: Path) -> None:
    """Put a symlink to the file in the file's place."""
    path.symlink_to(path.rename(path.with_name("moved")))


@pytest.mark.parametrize(
    ("spoil", "state", "compared", "told"),
    [
        (lambda _: None, ProofState.OK, "digest", ""),
        (flip, ProofState.CHANGED, "digest", "has other bytes than were published"),
        (lambda path: os.truncate(path, 10), ProofState.CUT, "size", "10 bytes, not "),
        (Path.unlink, ProofState.GONE, "size", "not listed by local"),
        (make_a_symlink, ProofState.UNREADABLE, "size", "cannot be read: Too many levels"),
    ],
)
async def test_states(
    tmp_path: Path,
    registry: Registry,
    *,
    spoil: Callable[[Path], None],
    state: ProofState,
    compared: str,
    told: str,
) -> None:
    """Each kind of damage is told as what it is, and a bad file counts as published no more."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        (path,) = harness.templates
        spoil(path)
        (template,) = harness.services.ledger.templates()
        with capture_logs() as logs:
            found = await harness.services.verifier.verify(template)
        assert (found.template, found.state, found.compared) == (template, state, compared)
        assert told in found.detail
        assert len(logs) == (0 if state is ProofState.OK else 1)
        proof = harness.services.ledger.proofs.of("local", template.name)
        assert proof is not None
        assert proof.state is state
        held = (await harness.services.engine.find(harness.latest)).volumes
        assert bool(held) is (state is ProofState.OK)


async def test_flipped_bytes_are_mended(tmp_path: Path, registry: Registry) -> None:
    """A file that was found changed is published anew by the next job, with the same bytes."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        first = await harness.bring()
        (path,) = harness.templates
        content = path.read_bytes()
        flip(path)
        await harness.services.verifier.verify_due(timedelta(0), 1 << 30)
        mended = await harness.bring()
        assert (mended.result, mended.volumes) == (first.result, first.volumes)
        assert path.read_bytes() == content
        (template,) = harness.services.ledger.templates()
        assert (await harness.services.verifier.verify(template)).state is ProofState.OK
        assert (await harness.bring()).result is Result.UNCHANGED


async def test_a_target_that_is_down(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that cannot be asked says nothing about its files, and nothing is written down."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        (template,) = harness.services.ledger.templates()
        before = harness.services.ledger.proofs.of("local", template.name)

        def down(_: object) -> None:
            raise PublishError("away")

        monkeypatch.setattr("syncd.targets.directory.DirectoryTarget.volumes", down)
        found = await harness.services.verifier.verify(template)
        assert (found.state, found.compared, found.detail) == ("unreadable", "nothing", "away")
        assert harness.services.ledger.proofs.of("local", template.name) == before


async def test_due(tmp_path: Path, registry: Registry) -> None:
    """A file is verified by itself when nobody did for the configured time, and not before."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        ledger, (template,) = harness.services.ledger, harness.services.ledger.templates()
        before = ledger.proofs.of("local", template.name)
        assert before is not None
        await harness.services.verifier.verify_due(timedelta(days=30), 1 << 30)
        assert ledger.proofs.of("local", template.name) == before
        with ledger._transaction() as db:
            long_ago = datetime.now(UTC) - timedelta(days=31)
            db.execute("UPDATE proofs SET at = ?", (long_ago.isoformat(),))
        await harness.services.verifier.verify_due(timedelta(days=30), 1 << 30)
        after = ledger.proofs.of("local", template.name)
        assert after is not None
        assert after.at >= before.at


async def test_foreign(tmp_path: Path, registry: Registry) -> None:
    """A proven file that somebody else put there is verified too; one that is gone was not ours."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        ledger, (path,) = harness.services.ledger, harness.templates
        ledger.forget("local", path.name)
        assert (await harness.bring()).result is Result.UNCHANGED
        (found,) = await harness.services.verifier.verify_published(None)
        assert (found.template.reference, found.state) == (None, ProofState.OK)
        assert found.template.volumes == (f"local:vztmpl/{path.name}",)
        assert verified_json(found)["reference"] is None
        flip(path)
        (found,) = await harness.services.verifier.verify_published(None)
        assert found.state is ProofState.CHANGED
        assert (await harness.services.engine.find(harness.latest)).volumes == ()
        path.unlink()
        assert await harness.services.verifier.verify_published(None) == []
