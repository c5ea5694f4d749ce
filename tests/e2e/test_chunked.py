"""zstd:chunked layers as Debian 13's skopeo and buildah write them, pulled by parts.

The registry's access log says how many bytes were served.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests import images
from tests.archives import directory, file, hardlink, symlink, tar, whiteout
from tests.chunked import PREFIX, chunked, chunked_layer
from tests.e2e.command import run
from tests.e2e.daemon import Syncd
from tests.e2e.registry import Registry
from tests.e2e.trixie import CHUNKED, Trixie

NOISE = random.Random(3).randbytes(6 << 20)
REPOSITORY = "acme/chunked"


def tree(change: bytes = b"") -> bytes:
    """Return a tar of all kinds of members; `change` is in two of them."""
    small = [
        file(f"usr/{nth:03}", NOISE[nth * 4000 : nth * 4000 + 4000] + change * (nth == 70))
        for nth in range(300)
    ]
    return tar(
        directory("usr"),
        *small,
        file("usr/empty"),
        file("usr/caf\u00e9", NOISE[:700], xattrs={"user.note": b"a\0b"}),
        file("usr/large", NOISE[: 5 << 20] + change),
        file("usr/holed", NOISE[:70_000] + bytes(300_000) + NOISE[:9]),
        file("usr/zeros", bytes(20_000)),
        hardlink("usr/linked", "usr/large"),
        symlink("usr/symbolic", "large"),
        whiteout("usr/gone"),
        file("usr/" + "long" * 60, NOISE[:5000]),
    )


FIRST, SECOND = tree(), tree(b"changed")


@pytest.fixture(scope="module")
def trixie() -> Iterator[Trixie]:
    made = Trixie()
    made.empty()
    yield made
    made.empty()


@pytest.fixture(scope="module")
def pushed(trixie: Trixie, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Push the two images, recompressed by skopeo; return their repository."""
    layers = {"first": images.layer_of(FIRST), "second": images.layer_of(SECOND)}
    content = {name: images.image(layer) for name, layer in layers.items()}
    layout = images.write_layout(tmp_path_factory.mktemp("chunked") / "layout", content)
    for name in layers:
        trixie.push(layout, name, f"{registry.address}/{REPOSITORY}:{name}", *CHUNKED)
    return f"{registry.address}/{REPOSITORY}"


def manifest_of(reference: str) -> dict[str, Any]:
    said = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
    manifest: dict[str, Any] = json.loads(said)
    return manifest


def test_writer(pushed: str, registry: Registry) -> None:
    """The tests' own writer says the same of a tar as the real one, in the same places."""
    (real,) = manifest_of(f"{pushed}:first")["layers"]
    blob = registry.blob_file(real["digest"]).read_bytes()
    ours = chunked_layer(FIRST)
    assert real["annotations"].keys() == ours.annotations.keys()
    assert real["mediaType"] == ours.media_type(docker=False)
    made = chunked(FIRST)
    table, split = _described(blob, real["annotations"])
    assert [_without_places(entry) for entry in table["entries"] if entry["type"] != "chunk"] == [
        _without_places(entry) for entry in made.entries if entry["type"] != "chunk"
    ]
    for key in ("version", "tarSplitDigest", "entries"):
        assert key in table
    ours_table, ours_split = _described(ours.stored, ours.annotations)
    assert table.keys() == ours_table.keys()
    assert [_without_sum(line) for line in split] == [_without_sum(line) for line in ours_split]
    assert blob[-72:-64] == ours.stored[-72:-64]
    assert blob[-8:] == ours.stored[-8:]
    offset, size, plain, *_ = struct.unpack("<7Q", blob[-64:-8])
    assert real["annotations"][f"{PREFIX}manifest-position"] == f"{offset}:{size}:{plain}:1"
    chunks = [entry for entry in table["entries"] if entry["type"] == "chunk"]
    assert {"zeros"} <= {entry.get("chunkType") for entry in chunks}
    keys = {key for entry in chunks for key in entry}
    assert keys >= {key for entry in made.entries if entry["type"] == "chunk" for key in entry}


def _described(
    blob: bytes, notes: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the table and the lines of the tar-split data of a blob."""
    found = []
    for key in ("manifest-position", "tarsplit-position"):
        offset, size = map(int, notes[PREFIX + key].split(":")[:2])
        stored = blob[offset : offset + size]
        found.append(zstandard.ZstdDecompressor().decompressobj().decompress(stored))
    return json.loads(found[0]), [json.loads(line) for line in found[1].splitlines()]


def _without_places(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what an entry says of a file, but not where the writer put it."""
    kept = ("type", "name", "size", "digest", "linkName", "mode")
    return {key: entry[key] for key in kept if key in entry}


def _without_sum(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of tar-split data without the CRC of a file's content."""
    return {**line, "payload": line["payload"] if line["type"] == 2 else bool(line["payload"])}


def pulled(
    folder: Path, registry: Registry, first: str, *later: str
) -> tuple[bytes, int, dict[str, Any]]:
    """Sync one reference after the other.

    Return the last one's template, how many bytes of blobs were served for it, and its job.
    """
    since = registry.mark()
    with Syncd(folder, [first]) as daemon:
        for reference in (first, *later):
            since = registry.mark() if reference is not first else since
            job = daemon.finished(daemon.request_sync([reference]).body["jobs"][0]["id"])
            assert job["outcome"] in ("published", "unchanged"), job
        served = sum(request.size for request in registry.requests("GET", "/blobs/", since))
        newest = max(daemon.templates, key=lambda path: path.stat().st_mtime_ns)
        return newest.read_bytes(), served, job


def size_of(reference: str) -> int:
    return sum(layer["size"] for layer in manifest_of(reference)["layers"])


def test_rebuilt_image(pushed: str, registry: Registry, tmp_path: Path) -> None:
    """Of a rebuilt image by skopeo few bytes come by few requests; the template is the same."""
    first, second = f"{pushed}:first", f"{pushed}:second"
    since = registry.mark()
    template, served, job = pulled(tmp_path / "parts", registry, first, second)
    partial = [one for one in registry.requests("GET", "/blobs/", since) if one.status == 206]
    assert 0 < len(partial) <= 2 * len(manifest_of(second)["layers"])
    whole, all_bytes, _ = pulled(tmp_path / "whole", registry, second)
    assert template == whole
    assert all_bytes >= size_of(second)
    assert served < size_of(second) / 20
    assert job["saved"] > size_of(second) * 0.95
    assert job["warnings"] == []


def test_buildah(trixie: Trixie, registry: Registry, pushed: str, tmp_path: Path) -> None:
    """What buildah pushes as zstd:chunked is pulled by parts, too, from parts of skopeo's."""
    (trixie.folder / "second.tar").write_bytes(SECOND)
    store = ("buildah", "--root", "/srv/store", "--runroot", "/srv/run", "--storage-driver", "vfs")
    reference = f"{registry.address}/{REPOSITORY}:buildah"
    trixie.run(*store, "from", "--name", "made", "scratch")
    trixie.run(*store, "add", "made", "/srv/second.tar", "/")
    trixie.run(*store, "commit", "-q", "made", "image")
    options = ("--compression-format", "zstd:chunked", "--force-compression", "--tls-verify=false")
    trixie.run(*store, "push", "-q", *options, "image", f"docker://{reference}")
    template, served, job = pulled(tmp_path / "parts", registry, f"{pushed}:first", reference)
    whole, _, _ = pulled(tmp_path / "whole", registry, reference)
    assert template == whole
    assert served < size_of(reference) / 10
    assert job["warnings"] == []


def test_old_writer(registry: Registry, pushed: str, tmp_path: Path) -> None:
    """What Debian 12's skopeo writes has no tar-split data: such a layer is pulled whole."""
    layout = images.write_layout(
        tmp_path / "layout", {"old": images.image(images.layer_of(SECOND, ""))}
    )
    reference = f"{registry.address}/{REPOSITORY}:old"
    options = ("--dest-tls-verify=false", *CHUNKED)
    run("skopeo", "copy", "-q", *options, f"oci:{layout}:old", f"docker://{reference}")
    (layer,) = manifest_of(reference)["layers"]
    assert not any("tarsplit" in key for key in layer.get("annotations", {}))
    assert any("zstd-chunked" in key for key in layer["annotations"])
    template, served, job = pulled(tmp_path / "parts", registry, f"{pushed}:first", reference)
    whole, _, _ = pulled(tmp_path / "whole", registry, reference)
    assert template == whole
    assert served >= layer["size"]
    assert (job["fetched"], job["saved"], job["warnings"]) == (layer["size"], 0, [])
