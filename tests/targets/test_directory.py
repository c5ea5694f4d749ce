"""What `targets.directory` promises: a folder that PVE lists, without accidents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.errors import PublishError
from syncd.formats import Format
from syncd.oci.reference import Digest
from syncd.progress import Advance, Silence
from syncd.targets.directory import DirectoryTarget
from syncd.targets.target import Volume

NAME = "ghcr.io_o_n_latest_0123456789ab.tar.zst"
VOLUME = f"local:vztmpl/{NAME}"


def target(folder: Path) -> DirectoryTarget:
    """Return a target on a folder."""
    return DirectoryTarget("local", folder)


def made(folder: Path, content: bytes = b"template") -> tuple[Path, Digest]:
    """Return a finished file and its digest."""
    file = folder / "made"
    file.write_bytes(content)
    return file, Digest.of(content)


def test_publish(tmp_path: Path) -> None:
    """A published file is listed with its size, can be read here, and is the only one."""
    cache = tmp_path / "storage" / "template" / "cache"
    local = target(tmp_path / "storage")
    assert (local.volumes(), local.missing(NAME, None), local.local(NAME)) == ([], ["local"], None)
    file, digest = made(tmp_path)
    volume = Volume(VOLUME, len(b"template"))
    for _ in range(2):
        assert local.publish(file, NAME, digest, Silence()) == [volume]
    assert local.volumes() == [volume]
    assert local.local(NAME) == cache / NAME
    assert (cache / NAME).read_bytes() == b"template"
    assert list(cache.iterdir()) == [cache / NAME]
    assert local.format() is Format.ROOTFS


def test_space(tmp_path: Path) -> None:
    """The space is that of the folder's file system, also before the folder is there."""
    (space,) = target(tmp_path / "storage").space()
    found = os.statvfs(tmp_path)
    assert space.place == "local"
    assert space.total == found.f_blocks * found.f_frsize
    assert 0 < space.free < space.total


@pytest.mark.parametrize(
    ("size", "missing"), [(None, []), (8, []), (7, ["local"]), (9, ["local"]), (0, ["local"])]
)
def test_missing(size: int | None, missing: list[str], tmp_path: Path) -> None:
    """A file of another size than is known does not count."""
    local = target(tmp_path / "storage")
    file, digest = made(tmp_path)
    local.publish(file, NAME, digest, Silence())
    assert local.missing(NAME, size) == missing


def test_listed_as_pve_does(tmp_path: Path) -> None:
    """Only files that PVE takes for templates are listed."""
    cache = tmp_path / "template" / "cache"
    cache.mkdir(parents=True)
    listed = ["a.tar", "b.tar.gz", "c.tar.xz", "d.tar.zst", "e.tar.bz2"]
    for name in (*listed, ".f.tar", "g.iso", "h.tar.part", ".i.tar.zst.part", "tar"):
        (cache / name).touch()
    (cache / "folder.tar").mkdir()
    (cache / "dangling.tar").symlink_to("nowhere")
    assert sorted(volume.name for volume in target(tmp_path).volumes()) == listed


def test_a_file_that_goes_while_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that vanishes during the listing takes no other with it."""
    cache = tmp_path / "template" / "cache"
    cache.mkdir(parents=True)
    for name in ("a.tar", "b.tar"):
        (cache / name).touch()
    iterdir = Path.iterdir

    def vanishing(folder: Path) -> list[Path]:
        found = list(iterdir(folder))
        (cache / "a.tar").unlink()
        return found

    monkeypatch.setattr(Path, "iterdir", vanishing)
    assert [volume.name for volume in target(tmp_path).volumes()] == ["b.tar"]


def test_never_overwrites(tmp_path: Path) -> None:
    """Another file of the same name is left alone, and told."""
    local = target(tmp_path)
    cache = tmp_path / "template" / "cache"
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"somebody else's")
    file, digest = made(tmp_path)
    with pytest.raises(PublishError, match=r"another size.*never overwrites"):
        local.publish(file, NAME, digest, Silence())
    assert (cache / NAME).read_bytes() == b"somebody else's"
    assert list(cache.iterdir()) == [cache / NAME]


def test_delete(tmp_path: Path) -> None:
    """A deleted file is gone, and may have been gone before."""
    local = target(tmp_path / "storage")
    file, digest = made(tmp_path)
    (volume,) = local.publish(file, NAME, digest, Silence())
    for _ in range(2):
        local.delete(volume)
        assert local.volumes() == []
    assert file.exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A target whose folder cannot be made says so, whatever is asked of it."""
    (tmp_path / "file").touch()
    local = target(tmp_path / "file")
    file, digest = made(tmp_path)
    with pytest.raises(PublishError, match=f"{tmp_path}/file.* cannot be made.*'local'"):
        local.publish(file, NAME, digest, Silence())
    with pytest.raises(PublishError, match="cannot be listed"):
        local.volumes()
    (result,) = local.check()
    assert not result.ok
    assert "cannot be written" in result.detail


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    """A folder that has a template's name can neither be published over nor deleted."""
    (tmp_path / "template" / "cache" / NAME).mkdir(parents=True)
    local = target(tmp_path)
    file, digest = made(tmp_path)
    with pytest.raises(PublishError):
        local.publish(file, NAME, digest, Silence())
    with pytest.raises(PublishError, match=f"{VOLUME} cannot be deleted"):
        local.delete(Volume(VOLUME, 0))


def test_check(tmp_path: Path) -> None:
    """A check of a target in order says how much room it has, and leaves nothing behind."""
    (result,) = target(tmp_path).check()
    assert result.ok
    assert "GB free" in result.detail
    assert list((tmp_path / "template" / "cache").iterdir()) == []


def test_progress(tmp_path: Path) -> None:
    """Whoever watches hears of the file and all its bytes."""
    heard: list[object] = []

    class Watch:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            heard.append((step, subject, total))
            return heard.append

    file, digest = made(tmp_path)
    target(tmp_path / "storage").publish(file, NAME, digest, Watch())
    assert heard == [("publish", NAME, 8), 8]
