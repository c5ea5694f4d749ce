"""What the library face promises: four lines make a template, and `import syncd` costs nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from random import Random
from typing import Literal

import pytest
import zstandard

import syncd
from syncd.convert import list_members
from syncd.errors import (
    ImageError,
    InvalidReferenceError,
    LimitError,
    NotFoundError,
    RequestError,
    StoppedError,
    StorageError,
    VerificationError,
)
from syncd.oci import AnonymousAccess
from syncd.progress import Advance
from tests.archives import directory, file, hardlink, symlink, whiteout
from tests.fakes.registry import Registry
from tests.images import Content, Layer, digest, image, index, layer, layer_of, write_layout

FORMATS: tuple[Literal["rootfs"], Literal["oci"]] = ("rootfs", "oci")
HEAVY = ("aiohttp", "oras", "pydantic", "requests", "sqlite3", "zstandard")


def sample() -> Content:
    """Return an image of two layers with a large file, a link, and a file that goes."""
    bottom = layer(
        directory("etc"),
        file("etc/old", b"goes"),
        file("large", Random(1).randbytes(3 << 20), mode=0o600, uid=1000, gid=1001),
        hardlink("again", "large"),
    )
    top = layer(whiteout("etc/old"), symlink("etc/link", "../large"), compression="zstd")
    return index(image(bottom, top, runtime={"Cmd": ["/bin/sh"]}), attestation=True)


CUT = file("cut", b"content")[:-512]
NAMES = ["./", "./again", "./etc/", "./etc/link", "./large"]


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """Return the name of an image in a layout."""
    return f"oci:{write_layout(tmp_path / 'layout', {'latest': sample()})}:latest"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for what is written."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def plain_tar(template: bytes, form: str) -> bytes:
    """Return the plain tar in a template, as other programs read it."""
    if form == "oci":
        with tarfile.open(fileobj=io.BytesIO(template)) as archive:
            (*_, last) = archive.getmembers()
            content = archive.extractfile(last)
            assert content
            template = content.read()
    return zstandard.ZstdDecompressor().stream_reader(template, read_across_frames=True).read()


@pytest.mark.parametrize("form", FORMATS)
def test_four_lines(form: Literal["rootfs", "oci"], layout: str, folder: Path) -> None:
    """The result describes the file, and its diff_id is that of the plain tar in either format."""
    image = syncd.open_image(layout, platform="linux/amd64")
    done = syncd.flatten(image, folder / "base", format=form, level=3)
    written = (folder / "base").read_bytes()
    plain = plain_tar(written, form)
    assert (str(done.digest), done.size) == (digest(written), len(written))
    assert str(done.diff_id) == digest(plain)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert archive.getnames() == [name.rstrip("/") for name in NAMES]
    assert list(folder.iterdir()) == [folder / "base"]


@pytest.mark.parametrize("form", FORMATS)
def test_same_as_the_command(form: Literal["rootfs", "oci"], layout: str, folder: Path) -> None:
    """The library and `syncd convert` write the same bytes, of an image opened once."""
    command = [sys.executable, "-m", "syncd", "convert", layout, "command", "--format", form]
    subprocess.run([*command, "--level", "5"], cwd=folder, check=True, capture_output=True)
    image = syncd.open_image(layout)
    for name in ("one", "two"):
        syncd.flatten(image, str(folder / name), format=form, level=5)
        assert (folder / name).read_bytes() == (folder / "command").read_bytes()


def test_registry(registry: Registry, layout: str, folder: Path) -> None:
    """A reference is an image like any other; `access` says how to speak to its registry."""
    reference = registry.push("owner/name", "latest", sample())
    image = syncd.open_image(reference, access=lambda host: AnonymousAccess(host, plain_http=True))
    pulled = syncd.flatten(image, folder / "pulled")
    assert pulled == syncd.flatten(syncd.open_image(layout), folder / "local")
    with pytest.raises(NotFoundError):
        syncd.open_image(f"{reference}-none", access=lambda host: AnonymousAccess(host, True))


def loaded(statements: str) -> set[str]:
    """Return which heavy libraries, and which of our packages, these statements load."""
    program = f"import sys; {statements}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    return modules & {*HEAVY, "syncd.convert", "syncd.oci", "syncd.targets"}


def test_lazy() -> None:
    """`import syncd` loads nothing, and a name loads no more than where it lives."""
    assert loaded("import syncd; syncd.__version__, dir(syncd)") == set()
    assert loaded("import syncd; syncd.SyncdError, syncd.Limits") == set()
    assert loaded("import syncd; syncd.Reference, syncd.Platform") == {"syncd.oci"}
    assert "zstandard" in loaded("import syncd; syncd.flatten")


def test_names() -> None:
    """Every public name resolves, is listed by `dir`, and stays the same object."""
    assert set(syncd.__all__) <= set(dir(syncd))
    for name in syncd.__all__:
        assert getattr(syncd, name) is getattr(syncd, name)
    assert isinstance(RequestError("x"), syncd.SyncdError)


def test_unknown_name() -> None:
    """A name that is none is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'syncd' has no attribute 'nothing'"):
        syncd.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec("from syncd import nothing")
    assert not hasattr(syncd, "_nothing")


@pytest.mark.parametrize("platform", ["amd64", "", "linux/amd64/v1/x"])
def test_bad_platform(platform: str, layout: str) -> None:
    """A platform that does not follow its grammar is refused before anything is read."""
    with pytest.raises(InvalidReferenceError, match="platform"):
        syncd.open_image(layout, platform=platform)


def test_other_platform(layout: str) -> None:
    """An image that is not there for a platform is an ImageError that names what there is."""
    with pytest.raises(ImageError, match="linux/amd64"):
        syncd.open_image(layout, platform="linux/arm64")


@pytest.mark.parametrize("level", [0, -1, 20, "3", 3.0, True])
def test_bad_level(level: int, layout: str, folder: Path) -> None:
    """A compression level that syncd does not take is refused, and nothing is written."""
    with pytest.raises(RequestError, match="a number from 1 to 19"):
        syncd.flatten(syncd.open_image(layout), folder / "out", level=level)
    assert not list(folder.iterdir())


def test_bad_format(layout: str, folder: Path) -> None:
    """A format that is none is refused, and nothing is written."""
    with pytest.raises(RequestError, match="'zip' is no format"):
        syncd.flatten(syncd.open_image(layout), folder / "out", format="zip")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("output", ["", "/", ".", "a\0b"])
def test_bad_output(
    output: str, layout: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names no file is refused as a request that is wrong."""
    monkeypatch.chdir(folder)
    with pytest.raises(RequestError, match="not the name of a file"):
        syncd.flatten(syncd.open_image(layout), output)
    assert not list(folder.iterdir())


def test_missing_layout(tmp_path: Path) -> None:
    """A layout that is not there is an ImageError that names it."""
    with pytest.raises(ImageError, match="none is not an OCI image layout"):
        syncd.open_image(f"oci:{tmp_path / 'none'}:latest")


def test_unwritable_output(layout: str, folder: Path) -> None:
    """An output that cannot be written is a StorageError, and leaves nothing behind."""
    image = syncd.open_image(layout)
    (folder / "taken").mkdir()
    for output in (folder / "none" / "out", folder / "taken", folder / ("n" * 300)):
        with pytest.raises(StorageError):
            syncd.flatten(image, output)
    assert list(folder.rglob("*")) == [folder / "taken"]


def test_damaged_layer(layout: str, folder: Path) -> None:
    """A layer with other bytes than promised fails; the file that was there stays."""
    image = syncd.open_image(layout)
    (folder / "out").write_bytes(b"before")
    blob = image.image.layers[0].descriptor.digest.encoded
    path = Path(layout.split(":")[1]) / "blobs" / "sha256" / blob
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageError, match=blob):
        syncd.flatten(image, folder / "out")
    with pytest.raises(ImageError, match=blob):
        list_members(image)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("out", b"before")]


def test_limits(layout: str, folder: Path) -> None:
    """The bounds are those that the caller gives, for listing too."""
    image = syncd.open_image(layout)
    for limits in (syncd.Limits(unpacked=1000), syncd.Limits(entries=4), syncd.Limits(layers=1)):
        with pytest.raises(LimitError):
            syncd.flatten(image, folder / "out", limits=limits)
        with pytest.raises(LimitError):
            list_members(image, limits=limits)
    assert not list(folder.iterdir())


def test_progress(layout: str, folder: Path) -> None:
    """A progress hears of every layer and of the flattening, and can stop the work."""

    class Heard:
        def __init__(self, stop: str = "") -> None:
            self.steps: list[str] = []
            self._stop = stop

        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            self.steps.append(step)

            def advance(amount: int) -> None:
                if step == self._stop:
                    raise StoppedError("enough")

            return advance

    image = syncd.open_image(layout)
    heard = Heard()
    syncd.flatten(image, folder / "out", progress=heard)
    assert sorted(heard.steps) == ["flatten", "layer", "layer"]
    (folder / "out").unlink()
    for step in ("layer", "flatten"):
        with pytest.raises(StoppedError, match="enough"):
            syncd.flatten(image, folder / "out", progress=Heard(step))
    assert not list(folder.iterdir())


def test_list_members(layout: str) -> None:
    """The members listed are those of the template: whiteouts are gone, links point back."""
    members = {member.name.decode(): member for member in list_members(syncd.open_image(layout))}
    assert list(members) == NAMES
    again = members["./again"]
    assert (again.size, again.mode, again.uid, again.gid) == (3 << 20, 0o600, 1000, 1001)
    assert members["./large"].target == b"./again"
    assert members["./etc/link"].target == b"../large"


@pytest.mark.parametrize(
    ("stored", "plain", "kind"),
    [
        (layer(file("other")), layer(file("honest")), VerificationError),
        (layer_of(CUT), layer_of(CUT), ImageError),
    ],
    ids=["swapped", "cut"],
)
def test_list_members_verifies(
    stored: Layer, plain: Layer, kind: type[ImageError], tmp_path: Path
) -> None:
    """A layer that is cut, or not the one of the image's diff_id, is not listed."""
    forged = image(Layer(stored.stored, plain.plain, "gzip"))
    opened = syncd.open_image(f"oci:{write_layout(tmp_path / 'layout', {'': forged})}")
    with pytest.raises(kind, match=digest(stored.stored)):
        list_members(opened)
