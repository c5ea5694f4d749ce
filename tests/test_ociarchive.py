"""OCI archives: what is read of them, and what the `oci` template is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from syncd import ociarchive
from syncd.convert import convert
from syncd.errors import ImageError, StorageError, VerificationError
from syncd.job import Silence
from syncd.layout import Layout, Verified
from syncd.limits import Limits
from syncd.manifest import Descriptor, Image, Layer, read_image
from syncd.ociarchive import Archive
from syncd.reference import Digest, Platform
from syncd.rootfs import Written
from syncd.spool import Spool
from syncd.template import Format
from tests.archives import directory, file, tar, whiteout
from tests.images import Content, image, index, layer, write_layout

AMD64 = Platform("linux", "amd64")
CONTENT = b"content " * 10_000
RUNTIME = {
    "User": "1000:1000",
    "ExposedPorts": {"80/tcp": {}},
    "Env": ["PATH=/bin", "LANG=C.UTF-8"],
    "Entrypoint": ["/bin/app"],
    "Cmd": ["--serve"],
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "Labels": {"org.opencontainers.image.source": "https://example.org/"},
    "StopSignal": "SIGRTMIN+3",
}
DOCKER_ONLY = {"Hostname": "", "AttachStdin": False, "Image": "sha256:0", "OnBuild": None}


def sample(**how: Any) -> Content:
    """Return an image of two layers, the upper of which hides something of the lower."""
    lower = layer(directory("etc"), file("etc/old", b"old"), file("etc/kept", CONTENT))
    return image(lower, layer(whiteout("etc/old"), file("etc/new", b"new")), **how)


def to_archive(content: Content, folder: Path, platform: Platform = AMD64) -> tuple[Path, Written]:
    """Convert an image to an `oci` template."""
    source = Layout(write_layout(folder / "layout", {"": content}))
    output = folder / "template.tar"
    written = convert(
        read_image(source, source.find(), platform),
        lambda wanted: Verified(source.blob(wanted), wanted),
        output,
        form=Format.OCI,
        level=3,
        limits=Limits(),
        spool=Spool(folder),
        progress=Silence(),
    )
    return output, written


def members(archive: Path) -> dict[str, bytes]:
    """Read an archive with Python's tarfile; in the order of its members."""
    with tarfile.open(archive, "r:") as opened:
        found = {}
        for member in opened:
            content = opened.extractfile(member)
            assert content is not None, member.name
            found[member.name] = content.read()
    return found


def documents(archive: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Follow an archive from its index; return manifest, config and the layer's plain tar."""
    found = members(archive)

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = found[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(content) == descriptor["size"]
        assert hashlib.sha256(content).hexdigest() == descriptor["digest"].split(":")[1]
        return content

    (entry,) = json.loads(found["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    (only,) = manifest["layers"]
    engine = zstandard.ZstdDecompressor()
    plain = engine.stream_reader(io.BytesIO(blob(only)), read_across_frames=True).read()
    return manifest, config, plain


def test_members(tmp_path: Path) -> None:
    """An archive has the members that PVE's extractor looks for, the layout's first, no others."""
    archive, _ = to_archive(sample(), tmp_path)
    names = list(members(archive))
    assert names[:2] == ["oci-layout", "index.json"]
    assert len(names) == 5
    assert all(name.startswith("blobs/sha256/") for name in names[2:])
    assert json.loads(members(archive)["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


@pytest.mark.parametrize("docker", [False, True])
def test_media_types(tmp_path: Path, docker: bool) -> None:
    """Whatever the registry served, the archive is of OCI's media types."""
    archive, _ = to_archive(sample(docker=docker), tmp_path)
    manifest, _, _ = documents(archive)
    kind = "application/vnd.oci.image."
    assert manifest["mediaType"] == f"{kind}manifest.v1+json"
    assert manifest["config"]["mediaType"] == f"{kind}config.v1+json"
    assert [one["mediaType"] for one in manifest["layers"]] == [f"{kind}layer.v1.tar+zstd"]


def test_flattened(tmp_path: Path) -> None:
    """The one layer is the flattened tree, and its diff_id is of its plain tar."""
    archive, written = to_archive(sample(), tmp_path)
    _, config, plain = documents(archive)
    with tarfile.open(fileobj=io.BytesIO(plain)) as opened:
        assert opened.getnames() == [".", "./etc", "./etc/kept", "./etc/new"]
        kept = opened.extractfile("./etc/kept")
        assert kept is not None
        assert kept.read() == CONTENT
    diff_id = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert config["rootfs"] == {"type": "layers", "diff_ids": [diff_id]}
    assert str(written.diff_id) == diff_id
    assert "history" not in config


def test_written(tmp_path: Path) -> None:
    """What is told of the file is true of the file as a whole."""
    archive, written = to_archive(sample(), tmp_path)
    content = archive.read_bytes()
    assert (written.size, written.digest) == (len(content), Digest.of(content))


def test_deterministic(tmp_path: Path) -> None:
    """The same image gives the same bytes."""
    for name in "ab":
        (tmp_path / name).mkdir()
    first, second = (to_archive(sample(), tmp_path / name)[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("docker", [False, True])
def test_runtime_kept(tmp_path: Path, docker: bool) -> None:
    """How the image is to be run is kept, and what only Docker knows is not."""
    archive, _ = to_archive(sample(docker=docker, runtime=RUNTIME | DOCKER_ONLY), tmp_path)
    _, config, _ = documents(archive)
    assert config["config"] == RUNTIME


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", {"os": "linux", "architecture": "amd64"}),
        ("linux/arm/v6", {"os": "linux", "architecture": "arm", "variant": "v6"}),
    ],
)
def test_platform_kept(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    """The platform is in the config, and in the index."""
    archive, _ = to_archive(sample(platform=text), tmp_path, Platform.parse(text))
    _, config, _ = documents(archive)
    assert {key: config.get(key) for key in expected} == expected
    (entry,) = json.loads(members(archive)["index.json"])["manifests"]
    assert entry["platform"] == expected


def test_odd_runtime(tmp_path: Path) -> None:
    """A config that PVE could not read is refused before anybody tries."""
    with pytest.raises(ImageError, match=r"\.config\.Env is not a JSON array"):
        to_archive(sample(runtime={"Env": "PATH=/bin"}), tmp_path)
    assert not (tmp_path / "template.tar").exists()


def test_read_again(tmp_path: Path) -> None:
    """What was written is read as a source."""
    archive, written = to_archive(sample(runtime=RUNTIME), tmp_path)
    source = Archive(archive)
    found = read_image(source, source.find(), AMD64)
    (only,) = found.layers
    assert (only.diff_id, found.runtime) == (written.diff_id, RUNTIME)
    blob = Verified(source.blob(only.descriptor), only.descriptor)
    while blob.read(1000):
        pass
    blob.close()


def image_of(content: Content, folder: Path) -> Image:
    source = Layout(write_layout(folder, {"": content}))
    return read_image(source, source.find(), AMD64)


def test_huge_layer(tmp_path: Path) -> None:
    """A layer of more than 8 GiB, which ustar has no room for, is told by a PAX record."""
    size = (8 << 30) + 5
    digest = Digest.of(b"huge")
    described = Layer(Descriptor(ociarchive.OCI_LAYER, digest, size), digest)
    archive = tmp_path / "huge.tar"
    with archive.open("w+b") as opened:
        wanted = image_of(sample(), tmp_path / "layout")
        ociarchive.begin(opened, wanted)
        opened.write(b"start")
        total = ociarchive.finish(opened, wanted, described)
    assert archive.stat().st_size == total
    with tarfile.open(archive, "r:") as read:
        last = read.getmembers()[-1]
        assert (last.name, last.size) == (f"blobs/sha256/{digest.encoded}", size)
        content = read.extractfile(last)
        assert content is not None
        assert content.read(5) == b"start"
    reader = Archive(archive).blob(described.descriptor, size - 3)
    assert reader.read(10) == b"\0\0\0"
    assert reader.read(10) == b""
    reader.close()


def packed(folder: Path, prefix: str, named: dict[str, Content], **how: Any) -> Path:
    """Write an archive with Python's tarfile, as other tools do: folders too, and any order."""
    layout, archive = write_layout(folder / "source", named), folder / "source.tar"
    with tarfile.open(archive, **({"mode": "w"} | how)) as opened:
        for path in sorted(layout.rglob("*")):
            opened.add(path, f"{prefix}{path.relative_to(layout)}", recursive=False)
    return archive


@pytest.mark.parametrize("prefix", ["", "./"])
def test_names(tmp_path: Path, prefix: str) -> None:
    """Members may start with `./`, and an image is found by its name or for being alone."""
    content, other = sample(), image(layer(file("other")))
    one = Archive(packed(tmp_path, prefix, {"one": content}))
    assert one.find() == one.find("one")
    assert read_image(one, one.find(), AMD64).manifest_digest == Digest.parse(content.digest)
    (tmp_path / "two").mkdir()
    two = Archive(packed(tmp_path / "two", prefix, {"one": content, "other": other}))
    assert two.find("other").digest == Digest.parse(other.digest)
    with pytest.raises(ImageError, match="several images; name one of: one, other"):
        two.find()
    with pytest.raises(ImageError, match="no image 'third'"):
        two.find("third")


def test_index_inside(tmp_path: Path) -> None:
    """An archive of several platforms is read like an index in a registry."""
    inside = index(sample(), sample(platform="linux/arm64"))
    source = Archive(packed(tmp_path, "", {"": inside}))
    assert str(read_image(source, source.find(), AMD64).platform) == "linux/amd64"


@pytest.mark.parametrize(
    ("mode", "compression"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")]
)
def test_compressed(tmp_path: Path, mode: str, compression: str) -> None:
    """A compressed archive is refused with a word on what to do."""
    with pytest.raises(ImageError, match=f"compressed with {compression}.*decompress it"):
        Archive(packed(tmp_path, "", {"": sample()}, mode=mode))


def test_cut(tmp_path: Path) -> None:
    """An archive that ends inside a member is refused."""
    archive = packed(tmp_path, "", {"": sample()})
    whole = archive.read_bytes()
    for size in (700, 1540):  # inside the second header; inside the first content
        archive.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"cut short|lacks"):
            Archive(archive).find()


def test_foreign(tmp_path: Path) -> None:
    """What `docker save` writes is named as what it is."""
    archive = tmp_path / "docker.tar"
    with tarfile.open(archive, "w") as opened:
        opened.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(ImageError, match="skopeo copy docker-archive:"):
        Archive(archive).find()


def test_wrong_content(tmp_path: Path) -> None:
    """A document with other content than its digest says is refused, one that lacks is named."""
    archive = packed(tmp_path, "", {"": sample()})
    source = Archive(archive)
    top = source.find()
    archive.write_bytes(archive.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 3'))
    with pytest.raises(VerificationError):
        source.document(top)
    absent = Descriptor("", Digest.of(b"absent"), 1)
    with pytest.raises(ImageError, match=r"lacks the member blobs/sha256/"):
        source.blob(absent)


def test_archive_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that loses its end while it is looked at is an error, and the end of it."""
    path = tmp_path / "archive"
    path.write_bytes(bytes(4096))
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(ImageError, match="became shorter"):
        Archive(path)


def test_archive_that_goes(tmp_path: Path) -> None:
    """An archive that is deleted while it is read is a StorageError."""
    path = tmp_path / "archive"
    path.write_bytes(tar(file("oci-layout", b"{}"), file("index.json", b"{}")))
    archive = Archive(path)
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        archive.find()
