"""The check of a cluster for `syncd check`: whether syncd reaches it, and may do its duties."""

from __future__ import annotations

from collections.abc import Iterator

from syncd.errors import PublishError, SyncdError
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import Version
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.mounted import MountedStorages
from syncd.targets.proxmox.privileges import (
    container_duties,
    replacement_duties,
    storage_duties,
)
from syncd.targets.proxmox.storages import Place, Storages
from syncd.targets.proxmox.upload import Uploader
from syncd.targets.target import CheckResult

_WITHOUT = {
    "delete": "so old templates stay; ",
    "replace": "so containers that syncd replace is not granted by themselves keep their roots; ",
    "snapshot": "so syncd replace --snapshot is refused; ",
}
"""What follows where the privileges for a duty are missing, and that is no fault."""


def check_cluster(
    access: ClusterAccess,
    client: Client,
    storages: Storages,
    uploader: Uploader,
    mounted: MountedStorages,
) -> list[CheckResult]:
    """Return a result for each thing checked; a call that fails is a result, too."""
    client.forget("*")
    subject = f"target {access.name}"
    results = list(_endpoints(client, subject))
    if not any(result.ok for result in results):
        return results
    try:
        results += _nodes(storages, subject)
        results += _storages(storages, subject)
        places = storages.places()
        results += _chosen(client, places, mounted, uploader, subject)
        results += _duties(access, client, places[0], mounted, subject)
    except SyncdError as exc:
        results.append(CheckResult(False, subject, str(exc)))
    return results


def _endpoints(client: Client, subject: str) -> Iterator[CheckResult]:
    for endpoint in client.endpoints:
        try:
            version = client.ask(endpoint, "version", Version)["version"]
        except SyncdError as exc:
            yield CheckResult(False, subject, str(exc))
        else:
            yield CheckResult(True, subject, f"{endpoint} is Proxmox VE {version}")


def _nodes(storages: Storages, subject: str) -> Iterator[CheckResult]:
    yield CheckResult(True, subject, f"nodes online: {', '.join(sorted(storages.nodes()))}")
    if offline := storages.offline():
        detail = f"nodes offline: {', '.join(sorted(offline))}; they are made up once they are back"
        yield CheckResult(True, subject, detail)


def _storages(storages: Storages, subject: str) -> Iterator[CheckResult]:
    for storage in storages.visible():
        content = ",".join(sorted(storage.content))
        state = "enabled" if storage.enabled else "disabled"
        shared = "shared" if storage.shared else "not shared"
        detail = f"storage {storage.name}: {state}, {shared}, content {content}"
        yield CheckResult(True, subject, detail)


def _chosen(
    client: Client, places: list[Place], mounted: MountedStorages, uploader: Uploader, subject: str
) -> Iterator[CheckResult]:
    for place in places:
        how = "uploaded"
        if mounted.writes(place):
            try:
                how = f"written at {mounted.usable(place)}"
            except PublishError as exc:
                yield CheckResult(False, subject, str(exc))
                continue
        elif client.is_local:
            yield CheckResult(
                True, subject, f"{place.label} is out of pvesh's reach; see endpoints"
            )
            continue
        detail = f"templates go to {place.label}, {how}: {place.free / 1e9:.1f} GB free"
        yield CheckResult(True, subject, detail)
    if not mounted.configured and uploader.spool(places[0].node) is None:
        yield CheckResult(
            True,
            subject,
            "without Sys.Audit on /nodes nobody tells how much room there is for spooled uploads",
        )


def _duties(
    access: ClusterAccess,
    client: Client,
    place: Place,
    mounted: MountedStorages,
    subject: str,
) -> Iterator[CheckResult]:
    """Yield for each duty whether the token has the privileges for it.

    Containers are a duty only where a storage for root file systems is configured.  Templates are
    published without the privilege to delete, and containers are made without those to replace
    their roots or to take snapshots of them, so the absence of these is no fault.
    """
    duties = [
        duty
        for duty in storage_duties(place.storage)
        if not (duty.name == "upload" and mounted.writes(place))
    ]
    if access.rootfs_storage is not None:
        duties += container_duties([access.rootfs_storage], [access.bridge], access.pool)
        duties += replacement_duties(access.rootfs_storage, access.pool)
    for duty in duties:
        lacking = client.lacking([duty])
        if not lacking:
            yield CheckResult(True, subject, f"may {duty.name} ({duty.path})")
        for _, missing in lacking:
            yield CheckResult(
                duty.name in _WITHOUT,
                subject,
                f"may not {duty.name}: {', '.join(missing)} on {duty.path} is missing; "
                f"{_WITHOUT.get(duty.name, '')}{client.granting(duty.path, missing)}",
            )
