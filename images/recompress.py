"""Give an image's layers the form zstd:chunked, of which a puller fetches only the new parts.

buildx cannot write that form, skopeo can, but skopeo alone would lose what BuildKit puts beside an
image: the index, and the attestations, which name the image's digest.  So the image goes through
skopeo, and what is around it is written anew for the digest that comes out.  What the layers hold
stays byte for byte (their diff_ids, hence the config, are checked to be the same).  On a runner,
with what buildx wrote as `type=oci,tar=false,dest=BUILT`:

    python3 -m images.recompress BUILT NEW

NEW is a layout with the one index, named `image`; its digest is printed.  Exit status 0, or 1 with
a sentence.  The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
https://docs.docker.com/build/metadata/attestations/attestation-storage/
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
STATEMENT = "application/vnd.in-toto+json"
REF_NAME = "org.opencontainers.image.ref.name"
ATTESTED = "vnd.docker.reference.digest"
FORM = ("--dest-compress", "--dest-compress-format", "zstd:chunked")  # of dir: alone, not of oci:

Descriptor = dict[str, Any]
Document = dict[str, Any]


class RecompressError(Exception):
    """The layout is not what BuildKit writes, or skopeo failed; the message says where."""


class Layout:
    """An OCI image layout: blobs by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob lies."""
        return self.folder / "blobs" / digest.replace(":", "/")

    def read(self, entry: Descriptor) -> Document:
        """Return a document; raise RecompressError where there is none."""
        try:
            found: Document = json.loads(self.path(entry["digest"]).read_bytes())
        except (OSError, ValueError, KeyError) as error:
            raise RecompressError(f"{self.folder} lacks a document: {error}") from error
        return found

    def write(self, document: Document, media_type: str, **described: Any) -> Descriptor:
        """Keep a document; return its descriptor, with `described` in it."""
        content = json.dumps(document, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.path(digest).write_bytes(content)
        return {
            "mediaType": media_type,
            "digest": digest,
            "size": len(content),
            **described,
        }

    def take(self, entry: Descriptor, file: Path) -> None:
        """Keep a blob that lies in a file of the same disk."""
        if not self.path(entry["digest"]).exists():
            os.link(file, self.path(entry["digest"]))

    def name(self, entry: Descriptor) -> None:
        """Make a manifest or index the one that the layout has, as `image`."""
        named = {**entry, "annotations": {REF_NAME: "image"}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.folder / "index.json").write_text(json.dumps(index))


def recompress(built: Layout, new: Layout) -> str:
    """Write the index of one layout to another with its images' layers as zstd:chunked.

    Return the digest of the new index.
    """
    top = _top(built)
    index = built.read(top)
    if index.get("mediaType") != INDEX:
        raise RecompressError(f"{built.folder} has no index: build with provenance or sbom")
    images = {
        entry["digest"]: _image(built, new, entry)
        for entry in index["manifests"]
        if ATTESTED not in entry.get("annotations", {})
    }
    entries = [
        images.get(entry["digest"]) or _attestations(built, new, entry, images)
        for entry in index["manifests"]
    ]
    found = new.write({**index, "manifests": entries}, INDEX)
    new.name(found)
    digest: str = found["digest"]
    return digest


def _top(built: Layout) -> Descriptor:
    try:
        (top,) = json.loads((built.folder / "index.json").read_bytes())["manifests"]
    except (OSError, ValueError, KeyError) as error:
        raise RecompressError(f"{built.folder} is not what buildx writes: {error}") from error
    found: Descriptor = top
    return found


def _image(built: Layout, new: Layout, entry: Descriptor) -> Descriptor:
    """Bring an image through skopeo; return the descriptor of what came out."""
    before = built.read(entry)
    with tempfile.TemporaryDirectory(dir=new.folder) as folder:
        alone, out = Layout(Path(folder) / "alone"), Path(folder) / "out"
        for part in (entry, before["config"], *before["layers"]):
            alone.take(part, built.path(part["digest"]))
        alone.name(entry)
        platform = entry.get("platform", {})
        where = [
            f"--override-{key}={platform[name]}"
            for key, name in (("os", "os"), ("arch", "architecture"), ("variant", "variant"))
            if name in platform
        ]
        done = subprocess.run(  # noqa: S603 - no shell, and BuildKit's own words
            ["skopeo", *where, "copy", "--quiet", *FORM, f"oci:{alone.folder}:image", f"dir:{out}"],  # noqa: S607 - PATH says whose
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise RecompressError(f"skopeo cannot recompress {entry['digest']}: {done.stderr}")
        after: Document = json.loads((out / "manifest.json").read_bytes())
        if after["config"]["digest"] != before["config"]["digest"]:
            raise RecompressError(f"skopeo changed the config of {entry['digest']}")
        plain = [layer for layer in after["layers"] if not layer["mediaType"].endswith("+zstd")]
        if plain:
            raise RecompressError(f"skopeo left {plain[0]['digest']} as it was")
        for part in (after["config"], *after["layers"]):
            new.take(part, out / part["digest"].partition(":")[2])
    after = {**after, "mediaType": MANIFEST}
    if "annotations" in before:
        after["annotations"] = before["annotations"]
    kept = {key: entry[key] for key in ("platform", "annotations") if key in entry}
    return new.write(after, MANIFEST, **kept)


def _attestations(
    built: Layout, new: Layout, entry: Descriptor, images: dict[str, Descriptor]
) -> Descriptor:
    """Write an image's attestations anew for its new digest; return their descriptor."""
    old = entry["annotations"][ATTESTED]
    if old not in images:
        raise RecompressError(f"{entry['digest']} attests {old}, which the index lacks")
    manifest = built.read(entry)
    layers = [
        _statement(built, new, layer, old, images[old]["digest"]) for layer in manifest["layers"]
    ]
    config = {
        **built.read(manifest["config"]),
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    described = new.write(config, manifest["config"]["mediaType"])
    return new.write(
        {**manifest, "config": described, "layers": layers},
        MANIFEST,
        annotations={**entry["annotations"], ATTESTED: images[old]["digest"]},
        platform=entry["platform"],
    )


def _statement(built: Layout, new: Layout, layer: Descriptor, old: str, digest: str) -> Descriptor:
    """Write a statement anew, its subject being the image of the new digest."""
    if layer["mediaType"] != STATEMENT:
        raise RecompressError(f"{layer['digest']} is no statement but {layer['mediaType']}")
    statement = built.read(layer)
    algorithm, _, encoded = old.partition(":")
    for subject in statement["subject"]:
        if subject["digest"].get(algorithm) == encoded:
            subject["digest"] = {algorithm: digest.partition(":")[2]}
    return new.write(statement, STATEMENT, annotations=layer["annotations"])


def main(arguments: Sequence[str]) -> int:
    """Recompress a layout; print the digest of what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("built", type=Path, help="the layout that buildx wrote")
    parser.add_argument("new", type=Path, help="the layout to write, a new folder")
    chosen = parser.parse_args(arguments)
    try:
        digest = recompress(Layout(chosen.built), Layout(chosen.new))
    except (RecompressError, OSError, KeyError, TypeError) as error:
        sys.stderr.write(f"::error::{error}\n")
        return 1
    sys.stdout.write(f"{digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
