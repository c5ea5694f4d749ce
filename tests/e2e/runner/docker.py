"""`docker` by buildah and skopeo: what builds, pushes, scans and inspects images.

    docker buildx imagetools inspect --format '{{.Manifest.Digest}}' REFERENCE
    docker image inspect --format '{{json .Config.Labels}}' REFERENCE
    docker buildx build-push-action       # the inputs in INPUTS, as JSON
    docker buildx scan-action             # likewise

What is pushed has the shape of what BuildKit pushes: an index of the image and of a manifest with
its attestations (https://docs.docker.com/build/metadata/attestations/attestation-storage/).  So
what the workflow passes on is the digest of an index, and syncd has to find the image in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.e2e.command import CommandError, attempt, run

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
PREDICATES = {"sbom": "https://spdx.dev/Document", "provenance": "https://slsa.dev/provenance/v1"}

_ARGUMENT = re.compile(r"^ARG (\w+)=(\S+)$", re.MULTILINE)
_WRITTEN = re.compile("type=oci,tar=false,dest=([^,]+),rewrite-timestamp=true")

Descriptor = dict[str, Any]


def main() -> int:
    """Do what the words after `docker` say."""
    match sys.argv[1:]:
        case ["buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", reference]:
            return inspect(reference)
        case ["image", "inspect", "--format", "{{json .Config.Labels}}", reference]:
            sys.stdout.write(json.dumps(_labels(reference)) + "\n")
            return 0
        case ["buildx", "build-push-action"]:
            return build_push(json.loads(os.environ["INPUTS"]))
        case ["buildx", "scan-action"]:
            return scan(json.loads(os.environ["INPUTS"]))
    sys.stderr.write(f"stand-in for docker: does not know {sys.argv[1:]}\n")
    return 2


def inspect(reference: str) -> int:
    """Print the digest of what a tag names, be it an index."""
    done = attempt("skopeo", *_skopeo(), "inspect", *_login(), "--raw", f"docker://{reference}")
    if done.returncode:
        sys.stderr.write(f"ERROR: {reference}: not found\n{done.stderr}")
        return 1
    sys.stdout.write(f"sha256:{hashlib.sha256(done.stdout.encode()).hexdigest()}\n")
    return 0


def build_push(inputs: Mapping[str, str]) -> int:
    """Build an image; keep it (`load`), write it to a layout, or push it; tell its digest."""
    loads = inputs["load"] == "true"
    written = _WRITTEN.fullmatch(inputs["outputs"])
    pushed = inputs["outputs"] == "type=image,push=true,rewrite-timestamp=true"
    if [loads, written is not None, pushed].count(True) != 1:
        sys.stderr.write("stand-in for docker/build-push-action: neither load, layout nor push\n")
        return 2
    tags = inputs["tags"].split(",")
    iid = Path(os.environ["RUNNER_TEMP"]) / "iid"
    contexts = _contexts(Path(inputs["file"]), inputs["build-contexts"].splitlines())
    labels = [f"--label={line}" for line in inputs["labels"].splitlines() if line]
    ignore = Path(f"{inputs['file']}.dockerignore")
    _buildah(
        *("bud", "--format=oci", "--layers", "--tls-verify=false", *_login()),
        *(["--no-cache"] if inputs["no-cache"] == "true" else []),
        *(["--ignorefile", str(ignore)] if ignore.exists() else []),
        *(f"--timestamp={os.environ['SOURCE_DATE_EPOCH']}", *contexts, *labels),
        *(["--tag", tags[0]] if loads else []),
        *("--iidfile", str(iid), "--file", inputs["file"], inputs["context"]),
    )
    _record({"built": inputs["file"].split("/")[1], **inputs})
    if loads:
        return 0
    with tempfile.TemporaryDirectory(dir=os.environ["RUNNER_TEMP"]) as folder:
        layout = Path(folder)
        _buildah("push", "--quiet", iid.read_text(), f"oci:{layout}:image")
        attests = {name: inputs[name] not in ("", "false") for name in PREDICATES}
        digest = _index(layout, attests, inputs["annotations"].splitlines())
        if written:
            run("skopeo", "copy", "--quiet", "--all", f"oci:{layout}:index", f"oci:{written[1]}")
        else:
            _copy(f"oci:{layout}:index", tags[0])
            for tag in tags[1:]:
                _tag(_blob(layout, digest).read_bytes(), tag)
    _output("digest", digest)
    return 0


def _contexts(dockerfile: Path, named: Sequence[str]) -> list[str]:
    """Return buildah's options for named contexts, `NAME=docker-image://REFERENCE`.

    Where a FROM names an argument, BuildKit looks for what it stands for, buildah for its name.
    """
    images = dict(line.split("=docker-image://") for line in named)
    options = [f"--build-context={line}" for line in named]
    for argument, default in _ARGUMENT.findall(dockerfile.read_text()):
        if reference := images.get(default):
            options.append(f"--build-arg={argument}={reference}")
    return options


def scan(inputs: Mapping[str, str]) -> int:
    """Write a report of Grype's with what the image's label says, and fail for nothing."""
    Path(os.environ["GRYPE_CONFIG"]).read_text(encoding="utf-8")
    if (inputs["output-format"], inputs["fail-build"]) != ("json", "false"):
        sys.stderr.write("stand-in for anchore/scan-action: reports JSON, and never fails\n")
        return 2
    label = (_labels(inputs["image"]) or {}).get("e2e.finding", "")
    matches = [
        {
            "vulnerability": {"id": vulnerability, "severity": "Critical", "fix": {"versions": []}},
            "artifact": {"name": package, "version": "1"},
        }
        for vulnerability, package in ([label.split()] if label else [])
    ]
    report = Path(os.environ["RUNNER_TEMP"]) / "report.json"
    report.write_text(json.dumps({"matches": matches}))
    _output("json", str(report))
    return 0


def _labels(reference: str) -> dict[str, str] | None:
    """Return the labels of an image that was kept, or None as Docker does."""
    found = json.loads(_buildah("inspect", "--type=image", reference))
    labels: dict[str, str] | None = found["OCIv1"]["config"].get("Labels")
    return labels


def _index(layout: Path, attests: Mapping[str, bool], annotations: list[str]) -> str:
    """Put an index around a layout's image, tagged `index`; return its digest.

    `annotations` are `index,manifest:KEY=VALUE`, the places where BuildKit puts each.
    """
    places: dict[str, dict[str, str]] = {"index": {}, "manifest": {}}
    for line in filter(None, annotations):
        where, _, pair = line.partition(":")
        key, _, value = pair.partition("=")
        for place in where.split(","):
            places[place][key] = value
    (image,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(layout, image["digest"]).read_text())
    config = json.loads(_blob(layout, manifest["config"]["digest"]).read_text())
    manifest.pop("annotations", None)  # buildah's own: BuildKit adds none by itself
    if places["manifest"]:
        manifest["annotations"] = places["manifest"]
    image = _put(layout, manifest, MANIFEST)
    image["platform"] = {"architecture": config["architecture"], "os": config["os"]}
    found = [image]
    layers = [
        _put(layout, _statement(predicate, image), "application/vnd.in-toto+json")
        | {"annotations": {"in-toto.io/predicate-type": predicate}}
        for name, predicate in PREDICATES.items()
        if attests[name]
    ]
    if layers:
        diff_ids = [layer["digest"] for layer in layers]
        unknown = {"architecture": "unknown", "os": "unknown"}
        empty = unknown | {"config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        kept = _put(layout, empty, "application/vnd.oci.image.config.v1+json")
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": kept, "layers": layers}
        found.append(
            _put(layout, document, MANIFEST)
            | {
                "annotations": {
                    "vnd.docker.reference.digest": image["digest"],
                    "vnd.docker.reference.type": "attestation-manifest",
                },
                "platform": unknown,
            }
        )
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
    if places["index"]:
        index["annotations"] = places["index"]
    top = _put(layout, index, INDEX)
    top["annotations"] = {"org.opencontainers.image.ref.name": "index"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    digest: str = top["digest"]
    return digest


def _statement(predicate: str, image: Descriptor) -> dict[str, Any]:
    """Return a statement about an image that says nothing of it."""
    algorithm, _, encoded = image["digest"].partition(":")
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": predicate,
        "predicate": {},
        "subject": [{"name": "pkg:docker/image", "digest": {algorithm: encoded}}],
    }


def _put(layout: Path, document: object, media_type: str) -> Descriptor:
    content = json.dumps(document, sort_keys=True).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blob(layout, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _record(entry: Mapping[str, str]) -> None:
    with Path(os.environ["STANDIN_BUILT"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _output(name: str, value: str) -> None:
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write(f"{name}={value}\n")


def _copy(source: str, reference: str) -> None:
    """Copy an index to ghcr.io; registries.conf tells other places for reading only."""
    address = os.environ["STANDIN_REGISTRY"]
    target = f"docker://{address}/{reference.removeprefix('ghcr.io/')}"
    # Else skopeo may put layers in place that it knows to be the same, as another run pushed them.
    options = ["--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    options += [word.replace("--", "--dest-") for word in _login()]
    run("skopeo", "copy", *options, source, target)


def _tag(index: bytes, reference: str) -> None:
    """Push an index whose manifests are there under another tag."""
    name, _, tag = reference.removeprefix("ghcr.io/").rpartition(":")
    address = os.environ["STANDIN_REGISTRY"]
    login = json.loads((Path(os.environ["RUNNER_TEMP"]) / "auth.json").read_text())
    headers = {
        "Authorization": f"Basic {login['auths'][address]['auth']}",
        "Content-Type": INDEX,
    }
    url = f"http://{address}/v2/{name}/manifests/{tag}"
    urlopen(Request(url, index, headers, method="PUT"), timeout=30).close()


def _skopeo() -> list[str]:
    return ["--registries-conf", os.environ["STANDIN_REGISTRIES"]]


def _login() -> list[str]:
    return [f"--authfile={os.environ['RUNNER_TEMP']}/auth.json"]


def _buildah(*words: str) -> str:
    storage = Path(os.environ["STANDIN_STORAGE"])
    where = (f"--root={storage}", f"--runroot={storage}-run", "--storage-driver=overlay")
    conf = f"--registries-conf={os.environ['STANDIN_REGISTRIES']}"
    # What a build that fails leaves mounted goes with the namespace.
    buildah = ("unshare", "--mount", "buildah", *where, conf)
    return run(*buildah, *words, env={"BUILDAH_ISOLATION": "chroot"}, timeout=900)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        sys.exit(f"{error}")
