"""What is read of other tools' archives and folders: `docker save` and skopeo's `dir:`."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import ImageError, InvalidReferenceError, LimitError, VerificationError
from syncd.limits import Limits
from syncd.oci.docker_archive import DockerArchive
from syncd.oci.source import OpenedImage, open_image
from tests.archives import file
from tests.images import Content, Layer, digest, image, index, layer

BOTTOM = layer(file("a", b"bottom" * 5000), compression="")
TOP = layer(file("b", b"top"), compression="gzip")
IMAGE = image(BOTTOM, TOP)
ARM = image(BOTTOM, platform="linux/arm64")


def config_of(content: Content) -> bytes:
    return content.blobs[content.document["config"]["digest"]]


def saved(
    path: Path,
    *images: tuple[Content, list[str] | None, list[Layer]],
    linked: bool = False,
    prefix: str = "",
) -> Path:
    """Write what `docker save` writes; with `linked`, all layers but the first are symlinks."""
    rows: list[dict[str, Any]] = []
    with tarfile.open(path, "w") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for content, tags, layers in images:
            config = config_of(content)
            names = []
            for number, made in enumerate(layers):
                names.append(f"{len(rows)}-{number}/layer.tar")
                if linked:
                    add(f"{len(rows)}-{number}.tar", made.stored)
                    link = tarfile.TarInfo(prefix + names[-1])
                    link.type, link.linkname = tarfile.SYMTYPE, f"../{len(rows)}-{number}.tar"
                    archive.addfile(link)
                else:
                    add(names[-1], made.stored)
            name = f"{digest(config).partition(':')[2]}.json"
            add(name, config)
            rows.append({"Config": name, "RepoTags": tags, "Layers": names})
        add("manifest.json", json.dumps(rows).encode())
    return path


def contents(opened: OpenedImage) -> list[bytes]:
    """Read all layers to their verified ends."""
    found = []
    for one in opened.image.layers:
        reader = opened.open_layer(one.descriptor)
        try:
            data = b""
            while chunk := reader.read(1000):
                data += chunk
            found.append(data)
        finally:
            reader.close()
    return found


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_docker_archive(tmp_path: Path, linked: bool, prefix: str) -> None:
    """Layers are read plain or compressed, by links too, and the config is the registry's."""
    path = saved(
        tmp_path / "a.tar", (IMAGE, ["one:v1"], [BOTTOM, TOP]), linked=linked, prefix=prefix
    )
    opened = open_image(f"docker-archive:{path}")
    assert contents(opened) == [BOTTOM.stored, TOP.stored]
    assert opened.image.raw_config == config_of(IMAGE)
    assert str(opened.image.config_digest) == IMAGE.document["config"]["digest"]
    assert open_image(f"docker-archive:{path}").image.digest == opened.image.digest


@pytest.mark.parametrize(
    "name", ["one:v1", "docker.io/library/one:v1", "@0", IMAGE.document["config"]["digest"]]
)
def test_image_of_a_docker_archive(tmp_path: Path, name: str) -> None:
    """An image of several is found by each of its tags, by position and by its config's digest."""
    other = image(TOP)
    rows = (IMAGE, ["x/y:z", "one:v1"], [BOTTOM, TOP]), (other, None, [TOP])
    path = saved(tmp_path / "a.tar", *rows)
    assert open_image(f"docker-archive:{path}:{name}").image.raw_config == config_of(IMAGE)
    assert open_image(f"docker-archive:{path}:@1").image.raw_config == config_of(other)
    with pytest.raises(ImageError, match=r"several images; name one of: x/y:z, sha256:"):
        open_image(f"docker-archive:{path}")


def test_platform_of_a_docker_archive(tmp_path: Path) -> None:
    """Images of one name are chosen by their platform, and another platform is refused."""
    rows = (ARM, ["one:v1"], [BOTTOM]), (IMAGE, ["one:v1"], [BOTTOM, TOP])
    path = saved(tmp_path / "a.tar", *rows)
    assert open_image(f"docker-archive:{path}").image.raw_config == config_of(IMAGE)
    assert open_image(f"docker-archive:{path}", "linux/arm64").image.raw_config == config_of(ARM)
    with pytest.raises(ImageError, match="no manifest for linux/s390x"):
        open_image(f"docker-archive:{path}", "linux/s390x")


def test_wrong_layer(tmp_path: Path) -> None:
    """A layer with other content than the config promises is refused."""
    other = layer(file("a", b"forged" * 5000), compression="")
    path = saved(tmp_path / "a.tar", (image(BOTTOM), ["one:v1"], [other]))
    with pytest.raises(VerificationError, match="other content"):
        contents(open_image(f"docker-archive:{path}"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b"{}", "not a JSON array"),
        (b"[1]", "not a JSON object"),
        (b"[{}]", "Config is not text"),
        (b'[{"Config": "none"}]', "lacks the member none"),
        (b'[{"Config": "c", "Layers": []}]', "names 0 layers, its config 1"),
        (b'[{"Config": "c", "Layers": [1]}]', "Layers is not text"),
        (b'[{"Config": "c", "Layers": ["none"]}]', "lacks the member none"),
        (b'[{"Config": "c", "Layers": ["c"], "RepoTags": [1]}]', "RepoTags is not text"),
        (b"[" + b"[" * 50_000, "not JSON"),
    ],
)
def test_damaged_docker_archive(tmp_path: Path, rows: bytes, message: str) -> None:
    """What is no manifest.json of docker save is an error with its place."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (("manifest.json", rows), ("c", config_of(ARM))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ImageError, match=message):
        DockerArchive(path).tops()


def test_too_many_images(tmp_path: Path) -> None:
    """The images and layers of an archive are bounded as those of a registry are."""
    path = saved(tmp_path / "a.tar", *[(IMAGE, [f"o:v{n}"], [BOTTOM, TOP]) for n in range(3)])
    with pytest.raises(LimitError, match=r"limits\.layers"):
        DockerArchive(path, Limits(layers=2)).tops("@0")


def test_other_archives(tmp_path: Path) -> None:
    """An archive of no kind, and a compressed one, are told."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("oci-layout"))
    with pytest.raises(ImageError, match="name it as an OCI archive: oci-archive:"):
        open_image(f"docker-archive:{path}")
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ImageError, match="decompress it with gzip first"):
        open_image(f"docker-archive:{path}")


def plain(folder: Path, content: Content) -> Path:
    """Write what `skopeo copy ... dir:FOLDER` writes, all platforms with it."""
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(content.blobs[content.digest])
    manifests = [entry["digest"] for entry in content.document.get("manifests", [])]
    for key, blob in content.blobs.items():
        suffix = ".manifest.json" if key in manifests else ""
        (folder / f"{key.partition(':')[2]}{suffix}").write_bytes(blob)
    return folder


@pytest.mark.parametrize("content", [IMAGE, index(ARM, IMAGE), image(BOTTOM, TOP, docker=True)])
def test_plain_folder(tmp_path: Path, content: Content) -> None:
    """A folder of skopeo's is read, one image or all platforms, OCI's or Docker's."""
    opened = open_image(f"dir:{plain(tmp_path / 'a', content)}")
    assert contents(opened) == [BOTTOM.stored, TOP.stored]
    assert str(opened.image.digest) == content.digest


def test_damaged_plain_folder(tmp_path: Path) -> None:
    """A folder that is none of skopeo's, or lacks a blob, is refused."""
    with pytest.raises(ImageError, match="no folder of skopeo's dir"):
        open_image(f"dir:{tmp_path}")
    folder = plain(tmp_path / "a", IMAGE)
    (folder / digest(TOP.stored).partition(":")[2]).unlink()
    with pytest.raises(ImageError, match=f"lacks the blob {digest(TOP.stored)}"):
        contents(open_image(f"dir:{folder}"))


@pytest.mark.parametrize("content", [b"login:x:0:0:" * 99, b"\xff" * 700, b"root" * 128])
def test_no_tar(content: bytes, tmp_path: Path) -> None:
    """A file that is no tar is named, with what is meant, and without a byte of it."""
    no_tar = tmp_path / "passwd"
    no_tar.write_bytes(content)
    for transport in ("docker-archive", "oci-archive"):
        with pytest.raises(ImageError, match=f"{no_tar}: .*; name a whole tar, as") as caught:
            open_image(f"{transport}:{no_tar}")
        assert not re.search(r"login|xff|root", caught.value.what.removeprefix(str(no_tar)))


@pytest.mark.parametrize(
    "name",
    [
        "docker-daemon:debian:13",
        "docker-daemon:debian",
        "docker-daemon://debian:13",
        "containers-storage:debian",
        "containers-storage:[overlay@/var/lib]localhost/x:y",
        "ostree:x",
        "sif:/x.sif",
        "tarball:/x.tar",
    ],
)
def test_foreign_transports(name: str) -> None:
    """A transport that is not read is refused by name; Docker Hub is not asked for it."""
    transport = name.partition(":")[0]
    with pytest.raises(InvalidReferenceError, match=f"does not read {transport}: .*skopeo copy"):
        open_image(name, access=lambda _: pytest.fail("a registry was asked"))
