"""Proxmox targets made for tests, on the test double's cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.formats import Format
from syncd.oci.reference import Digest, Reference
from syncd.targets.container import Startup
from syncd.targets.origin import Origin
from syncd.targets.proxmox.target import ProxmoxTarget
from syncd.targets.target import PublishedImage, Volume
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Request, Token

TOKEN = "syncd@pve!sync"
NAME = "ghcr.io_acme_base_latest_0123456789ab.tar.zst"
VOLID = f"local:vztmpl/{NAME}"
SHARED = f"cephfs:vztmpl/{NAME}"
CONTENT = b"template " * 1000
IMAGE = Reference.parse(f"ghcr.io/acme/base:latest@{Digest.of(b'manifest')}")
LARGE = b"x" * (11 << 20)
"""More than proxmoxer sends from memory, and more than is told why it is refused."""
DUTIES = {"/storage": ["Datastore.Audit", "Datastore.AllocateTemplate", "Datastore.Allocate"]}
CREATING = {
    "/storage": ["Datastore.Audit", "Datastore.AllocateSpace"],
    "/nodes": ["Sys.Audit"],
    "/sdn/zones/localnetwork": ["SDN.Use"],
    "/vms": [
        "VM.Allocate", "VM.Audit", "VM.Config.CPU", "VM.Config.Disk", "VM.Config.Memory",
        "VM.Config.Network", "VM.Config.Options", "VM.PowerMgmt",
    ],
}  # fmt: skip
"""What making containers takes."""
LAUNCHING = {**CREATING, "/storage": [*CREATING["/storage"], *DUTIES["/storage"]]}


def token_for(pve: Pve, acl: Mapping[str, Iterable[str]] | None = None) -> Token:
    """Make the token that `target_on` uses."""
    return pve.cluster.token(TOKEN, DUTIES if acl is None else acl)


def target_on(pve: Pve, folder: Path, **changes: Any) -> ProxmoxTarget:
    """Return a target on the cluster with state in `folder`; `changes` are settings."""
    secret = folder / "token-secret"
    secret.write_text(f"secret-of-{TOKEN}\n")
    settings = {
        "name": "cluster",
        "type": "proxmox",
        "endpoints": (f"https://127.0.0.1:{pve.port}",),
        "token_id": TOKEN,
        "token_secret_file": secret,
        "ca_file": pve.certificate.file,
        "storage": "local",
    }
    return ProxmoxTarget(ProxmoxTargetSettings(**(settings | changes)), folder / "locks")


def published(
    volumes: Iterable[Volume],
    form: Format = Format.OCI,
    startup: Startup | None = None,
    mark: str = "0123456789abcdef",
) -> PublishedImage:
    """Return an image whose template these volumes list."""
    return PublishedImage(tuple(volumes), form, startup or Startup(), Origin(IMAGE, mark))


def finished(folder: Path, content: bytes = CONTENT) -> tuple[Path, Digest]:
    """Write a finished template file; return it and its digest."""
    file = folder / "finished"
    file.write_bytes(content)
    return file, Digest.of(content)


def arguments(folder: Path, content: bytes = CONTENT, name: str = NAME) -> tuple[Path, str, Digest]:
    """Write a finished file; return what `publish` is given of it."""
    file, digest = finished(folder, content)
    return file, name, digest


def names_on(pve: Pve, storage: str, node: str) -> list[str]:
    """Return the names of all files in a storage's folder, hidden ones too."""
    folder = pve.cluster.template_folder(pve.cluster.storages[storage], node)
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def uploads(pve: Pve) -> list[Request]:
    """Return the uploads that were asked for."""
    return [request for request in pve.requests if request.path.endswith("/upload")]


def when_asked(pve: Pve, path: str, act: Callable[[], object]) -> None:
    """Do something when the next request for a path that ends so arrives, before it is served."""

    class Watched(list[Request]):
        done = False

        def append(self, request: Request, /) -> None:
            super().append(request)
            if request.path.endswith(path) and not self.done:
                self.done = True
                act()

    pve.cluster.requests = Watched(pve.cluster.requests)
