"""What the `oci` template is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import event, given, settings
from hypothesis import strategies as st

from syncd.convert import oci_writer as ociwriter
from syncd.convert.options import Options
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import ImageError
from syncd.formats import Format
from syncd.oci.archive import Archive
from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.manifest import Descriptor, Image, Layer
from syncd.oci.reference import Digest, Platform
from syncd.oci.source import open_image
from tests.archives import directory, file, whiteout
from tests.images import Content, image, layer, write_layout

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


def to_archive(
    content: Content, folder: Path, platform: Platform = AMD64
) -> tuple[Path, WrittenTemplate]:
    """Convert an image to an `oci` template."""
    opened = open_image(f"oci:{write_layout(folder / 'layout', {'': content})}", platform)
    output = folder / "template.tar"
    return output, convert(opened, output, Options(ScratchSpace(folder), format=Format.OCI))


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


@pytest.mark.parametrize(
    ("runtime", "signal"),
    [
        ({"Entrypoint": ["/sbin/init"]}, "SIGRTMIN+3"),
        ({"Cmd": ["/lib/systemd/systemd", "--unit=a"]}, "SIGRTMIN+3"),
        ({"Entrypoint": ["/sbin/init"], "StopSignal": "SIGPWR"}, "SIGPWR"),
        ({"Entrypoint": ["/bin/app"], "Cmd": ["/sbin/init"]}, None),
        ({}, None),
    ],
)
def test_halt(tmp_path: Path, runtime: dict[str, Any], signal: str | None) -> None:
    """An image that starts an init is stopped by the signal on which systemd halts."""
    archive, _ = to_archive(sample(runtime=runtime), tmp_path)
    _, config, _ = documents(archive)
    assert config["config"].get("StopSignal") == signal
    assert {key: config["config"][key] for key in runtime} == runtime


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


_TEXTS = st.text(st.characters(codec=None), max_size=4)
_NAMES = st.lists(_TEXTS, max_size=2)
_VALUES = {
    "User": _TEXTS,
    "ExposedPorts": st.dictionaries(_TEXTS, st.dictionaries(_TEXTS, _TEXTS, max_size=1)),
    "Env": _NAMES,
    "Entrypoint": _NAMES,
    "Cmd": _NAMES,
    "Volumes": st.dictionaries(_TEXTS, _TEXTS, max_size=2),
    "WorkingDir": _TEXTS,
    "Labels": st.dictionaries(_TEXTS, _TEXTS, max_size=2),
    "StopSignal": _TEXTS,
}
"""Values of each field, of any characters: also controls and halves of surrogate pairs."""


def written_texts(value: object) -> Iterator[str]:
    """Yield every text of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from written_texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from written_texts(below)


@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries({}, optional=_VALUES))
def test_no_control_characters(runtime: dict[str, Any]) -> None:
    """Whatever a config says, an archive is refused or has no control character but a tab."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive, _ = to_archive(sample(runtime=runtime), Path(folder))
        except ImageError:
            event("refused")
            return
        event("written")
        _, config, _ = documents(archive)
        for text in written_texts(config["config"]):
            assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c != "\t"]


def test_read_again(tmp_path: Path) -> None:
    """What was written is read as a source."""
    archive, written = to_archive(sample(runtime=RUNTIME), tmp_path)
    opened = open_image(f"oci-archive:{archive}")
    (only,) = opened.image.layers
    assert (only.diff_id, opened.image.runtime) == (written.diff_id, RUNTIME)
    blob = opened.open_layer(only.descriptor)
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
    described = Layer(Descriptor(ociwriter.OCI_LAYER, digest, size), digest)
    archive = tmp_path / "huge.tar"
    with archive.open("w+b") as opened:
        wanted = image_of(sample(), tmp_path / "layout")
        ociwriter.begin(opened, wanted)
        opened.write(b"start")
        total = ociwriter.finish(opened, wanted, described)
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
