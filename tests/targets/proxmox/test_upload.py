"""Uploads that meet others, break off or fail: what must never happen on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.errors import PublishError, TargetUnavailableError, WrongFileError
from syncd.oci.reference import Digest
from syncd.progress import Advance, Silence
from syncd.targets.proxmox import upload
from syncd.targets.target import Volume
from tests.clusters import (
    CONTENT,
    LARGE,
    NAME,
    SHARED,
    arguments,
    finished,
    target_on,
    uploads,
    when_asked,
)
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token


@pytest.mark.parametrize("present", [b"other", CONTENT])
def test_never_overwrites(pve: Pve, token: Token, tmp_path: Path, present: bytes) -> None:
    """A name that is taken stays as it is: equal in size it is the template, else an error."""
    taken = pve.cluster.template(SHARED, "pve1")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(present)
    target = target_on(pve, tmp_path, storage="cephfs")
    if present == CONTENT:
        assert len(target.publish(*arguments(tmp_path), Silence())) == 1
    else:
        assert target.missing(NAME, len(CONTENT)) == ["cephfs"]
        with pytest.raises(WrongFileError, match=r"another size.*pvesm free") as failure:
            target.publish(*arguments(tmp_path), Silence())
        assert failure.value.volumes == ((SHARED, None),)
    assert taken.read_bytes() == present
    assert uploads(pve) == []


@pytest.mark.parametrize("node", ["pve1", "pve2"])
def test_growing(pve: Pve, token: Token, tmp_path: Path, node: str) -> None:
    """A growing file is listed but not present; a second writer waits for it and sends nothing.

    The task of the upload that is waited for runs on the node of the other host's endpoint.
    """
    pve.cluster.tasks_may_finish.clear()
    endpoint = f"https://127.0.0.1:{pve.endpoint(node)}"
    target = target_on(pve, tmp_path, storage="cephfs", endpoints=(endpoint,))
    other = target_on(pve, tmp_path, storage="cephfs")
    other._locks = tmp_path / "other-host"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(target.publish, *arguments(tmp_path), Silence())
        while not target.volumes():
            time.sleep(0.01)
        assert target.missing(NAME, len(CONTENT)) == ["cephfs"]
        second = pool.submit(other.publish, *arguments(tmp_path), Silence())
        time.sleep(0.5)
        assert not first.done()
        assert not second.done()
        pve.cluster.tasks_may_finish.set()
        assert first.result() == second.result()
    assert len(uploads(pve)) == 1


def test_a_foreign_file_that_becomes_whole(
    pve: Pve, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody else is still writing is waited for, and counts with its full size."""
    monkeypatch.setattr(upload, "_GROWTH_PAUSE", 0.01)
    taken = pve.cluster.template(SHARED, "pve1")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"")
    looks: list[int] = []

    class Writer(Silence):
        """Writes on, a third at a time, whenever the publication looks again."""

        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            def advance(amount: int) -> None:
                looks.append(amount)
                taken.write_bytes(CONTENT[: len(CONTENT) * min(len(looks), 3) // 3])

            return advance

    target = target_on(pve, tmp_path, storage="cephfs")
    volumes = target.publish(*arguments(tmp_path), Writer())
    assert volumes == [Volume(SHARED, len(CONTENT))]
    assert looks == [0, 0, 0]
    assert uploads(pve) == []


def test_foreign_writer(
    pve: Pve, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody else makes grow for too long is a passing trouble, and left alone."""
    monkeypatch.setattr(upload, "_GROWTH_BOUND", 2.0)
    taken = pve.cluster.template(SHARED, "pve1")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"begun")
    done = threading.Event()

    def grow() -> None:
        with taken.open("ab", buffering=0) as file:
            while not done.wait(0.05):
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(TargetUnavailableError, match="is being written by somebody else"):
            target_on(pve, tmp_path, storage="cephfs").publish(*arguments(tmp_path), Silence())
    finally:
        done.set()
        writer.join()
    assert uploads(pve) == []


def test_many_writers(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Many publish one name at a time from one host; it is sent once, and all find it."""
    targets = [target_on(pve, tmp_path, storage="cephfs") for _ in range(4)]
    template = arguments(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda target: target.publish(*template, Silence()), targets))
    assert results == [[Volume(SHARED, len(CONTENT))]] * 4
    assert len(uploads(pve)) == 1
    assert pve.cluster.overwritten == pve.cluster.collisions == []


def test_wrong_checksum(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A file that is not what its digest says is not published, and the reason is told."""
    file, _ = finished(tmp_path)
    target = target_on(pve, tmp_path, storage="cephfs")
    with pytest.raises(PublishError, match=r"checksum mismatch.*its log ends: .*TASK ERROR"):
        target.publish(file, NAME, Digest.of(b"other"), Silence())
    assert target.volumes() == []


def test_task_fails(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Only an exit status of OK is a success; the task's last words are in the error."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster.storages["cephfs"], "avail", 10))
    with pytest.raises(PublishError, match="No space left on device"):
        target_on(pve, tmp_path, storage="cephfs").publish(*arguments(tmp_path, LARGE), Silence())


def test_dropped_before(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload that broke off without a task is a passing trouble, and not sent again blindly."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster, "hang_ups", 1))
    with pytest.raises(TargetUnavailableError, match="broke off and left no task") as failure:
        target_on(pve, tmp_path, storage="cephfs").publish(*arguments(tmp_path, LARGE), Silence())
    assert failure.value.temporary
    assert len(uploads(pve)) == 1


def test_dropped_after(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload whose answer got lost is found by its task and counts."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster, "lost_answers", 1))
    target = target_on(pve, tmp_path, storage="cephfs")
    assert len(target.publish(*arguments(tmp_path, LARGE), Silence())) == 1
    assert len(uploads(pve)) == 1


def revoke(pve: Pve) -> None:
    pve.cluster.tokens["syncd@pve!sync"].acl["/storage"] = frozenset({"Datastore.Audit"})


def renew(pve: Pve) -> None:
    pve.cluster.tokens["syncd@pve!sync"].secret = "another"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(revoke, r"may not upload.*Datastore\.AllocateTemplate"), (renew, "token .*is not accepted")],
)
def test_dropped_for_a_reason(
    pve: Pve, token: Token, tmp_path: Path, spoil: Callable[[Pve], None], message: str
) -> None:
    """A connection dropped over a large body is diagnosed: a refusal is no passing trouble."""
    when_asked(pve, "/upload", lambda: spoil(pve))
    with pytest.raises(PublishError, match=message) as failure:
        target_on(pve, tmp_path, storage="cephfs").publish(*arguments(tmp_path, LARGE), Silence())
    assert not failure.value.temporary
    assert len(uploads(pve)) == 1
