"""From a push to a bootable template: `syncd` against real registries, images and unpackers."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e import machine, tree
from tests.e2e.command import run, wait_for
from tests.e2e.conftest import Image, Synced
from tests.e2e.daemon import Syncd, package_event
from tests.e2e.registry import Registry


def test_push_becomes_template(synced_base: Synced) -> None:
    """A signed `package` event ends in a template, under the name that the web UI looks for."""
    name = synced_base.image.template_name
    assert synced_base.template.name == name
    assert synced_base.image.reference.startswith(synced_base.job["reference"])
    assert synced_base.job["cause"] == "webhook"
    assert any(volume.endswith(f"vztmpl/{name}") for volume in synced_base.job["volumes"])


@pytest.mark.parametrize("synced", ["synced_base", "synced_app", "synced_small"], indirect=True)
def test_tree(synced: Synced, tmp_path: Path) -> None:
    """A template holds the tree that umoci unpacks of the same image, to the last attribute."""
    unpacked = machine.unpack(synced.template, tmp_path / "root")
    found = tree.differences(tree.scan(unpacked), tree.scan(synced.image.rootfs))
    assert found == []


@pytest.mark.parametrize("synced", ["synced_base", "synced_app"], indirect=True)
def test_unpacks_unprivileged(synced: Synced, tmp_path: Path) -> None:
    """GNU tar, called as Proxmox VE calls it, unpacks a template unprivileged without complaint."""
    root = tmp_path / "root"
    done = machine.unpack_unprivileged(synced.template, root)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, [])
    assert done.stderr.startswith("Total bytes read: ")
    expected = {
        name: properties
        for name, properties in tree.scan(synced.image.rootfs).items()
        if not name.startswith(b"dev/")
    }
    lines = tree.differences(
        tree.scan(root, machine.FIRST_ID), expected, ignore={(b"dev", "mtime")}
    )
    # A capability that a namespace's root sets is valid in that namespace only: its value differs.
    assert [line for line in lines if "security.capability" not in line] == []


@pytest.mark.parametrize("synced", ["synced_base", "synced_app"], indirect=True)
def test_boots(synced: Synced, tmp_path: Path) -> None:
    """A template of an image with systemd boots to multi-user.target, with no failed unit."""
    with machine.boot(machine.unpack(synced.template, tmp_path / "root")) as booted:
        booted.wait_for("multi-user.target")
        assert booted.failed_units() == []


def test_only_new_layers(synced_base: Synced, synced_app: Synced) -> None:
    """An image on top of a synced one reads the layers that the first did not bring, once each."""
    first, second = synced_base.image.layout, synced_app.image.layout
    assert sorted(synced_base.blobs) == sorted([*first.layers, first.config])
    new = [layer for layer in second.layers if layer not in first.layers]
    assert len(new) == len(second.layers) - len(first.layers)
    assert sorted(synced_app.blobs) == sorted([*new, second.config])


def test_docker_media_types(synced_small: Synced, registry: Registry, tmp_path: Path) -> None:
    """With Docker's media types for manifest, config and layers, a template has the same bytes."""
    reference = f"{registry.address}/acme/docker:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        synced_small.image.layout.push_as_docker(reference)
        assert_same_template(daemon, reference, synced_small, "docker.image.rootfs.diff.tar.gzip")


def test_zstd_layers(synced_small: Synced, registry: Registry, tmp_path: Path) -> None:
    """With layers that are compressed with zstd, a template has the same bytes."""
    reference = f"{registry.address}/acme/zstd:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        synced_small.image.layout.with_zstd(tmp_path / "copies").push(reference)
        assert_same_template(daemon, reference, synced_small, "oci.image.layer.v1.tar+zstd")


def assert_same_template(daemon: Syncd, reference: str, other: Synced, layer_type: str) -> None:
    """Sync an image that the registry serves with such layers; compare its template's bytes."""
    source = f"docker://{reference}"
    assert layer_type in run("skopeo", "inspect", "--raw", "--tls-verify=false", source)
    assert daemon.sync(reference)["outcome"] == "published"
    (template,) = daemon.templates
    assert template.read_bytes() == other.template.read_bytes()


def test_unchanged(daemon: Syncd, registry: Registry, synced_base: Synced) -> None:
    """A second event about the same image reads no blob, and its job ends `unchanged`."""
    before, mark = synced_base.template.stat(), registry.mark()
    job = daemon.sync(synced_base.image.reference)
    assert job["outcome"] == "unchanged"
    assert registry.blobs(mark) == []
    assert synced_base.template.stat() == before


def test_redelivery(daemon: Syncd, registry: Registry, synced_base: Synced) -> None:
    """A delivery that GitHub sends again, under the same id, starts no second job."""
    body = package_event(synced_base.image.reference)
    first, again = (daemon.deliver(body, delivery="0b989ba4-242f-11e5-81e1") for _ in range(2))
    assert (first.status, again.status) == (202, 202)
    assert len(first.body["jobs"]) == 1
    assert again.body.get("jobs", []) in ([], first.body["jobs"])


def test_wrong_signature(daemon: Syncd, registry: Registry, synced_base: Synced) -> None:
    """An event signed with another secret is refused, and nothing is asked of the registry."""
    mark = registry.mark()
    answer = daemon.deliver(package_event(synced_base.image.reference), secret="guessed")
    assert answer.status == 401
    assert registry.requests("(GET|HEAD)", "/acme/", mark) == []


def test_signal_syncs(small: Image, registry: Registry, tmp_path: Path) -> None:
    """SIGUSR1 syncs everything that is watched."""
    reference = f"{registry.address}/acme/signal:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = small.push(reference)
        daemon.signal(signal.SIGUSR1)
        wanted = daemon.storage / "template" / "cache" / pushed.template_name
        wait_for("the template", wanted.exists, timeout=30)


def test_api_syncs(small: Image, registry: Registry, tmp_path: Path) -> None:
    """A sync asked for over HTTP, with the token, publishes; without the token it is refused."""
    reference = f"{registry.address}/acme/api:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = small.push(reference)
        assert daemon.ask("POST", "/api/v1/sync", b"{}").status == 401
        answer = daemon.request_sync([reference])
        assert answer.status == 202
        (job,) = answer.body["jobs"]
        assert daemon.finished(job["id"])["outcome"] == "published"
        assert [template.name for template in daemon.templates] == [pushed.template_name]


@pytest.mark.usefixtures("synced_app", "synced_small")  # of what is watched nothing is missing
def test_commands(daemon: Syncd, synced_base: Synced) -> None:
    """`check`, `status` and `resolve` speak of the running daemon's configuration and templates."""
    reference, name = synced_base.image.reference, synced_base.template.name
    for arguments, expected in [
        (["check"], ""),
        (["status", "--json"], name),
        (["resolve", reference], f"vztmpl/{name}"),
    ]:
        done = daemon.run(*arguments)
        assert done.returncode == 0, (arguments, done)
        assert expected in done.stdout.replace("\n", ""), arguments


def test_cache_is_a_layout(daemon: Syncd, synced_base: Synced, synced_app: Synced) -> None:
    """The blob cache is an OCI layout, in which skopeo finds images by their full reference."""
    for image in (synced_base.image, synced_app.image):
        cached = f"oci:{daemon.cache}:{image.reference}"
        assert run("skopeo", "inspect", "--raw", cached) == run(
            "skopeo", "inspect", "--raw", str(image.layout)
        )
        assert run("skopeo", "inspect", "--config", cached)
