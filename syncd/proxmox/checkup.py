"""What `syncd check` tells of a cluster: whether it can be reached, and whether syncd may work."""

from __future__ import annotations

from collections.abc import Iterator

from syncd.errors import PublishError, SyncdError
from syncd.proxmox.client import Client
from syncd.proxmox.folder import Folders
from syncd.proxmox.placement import Place, Placement
from syncd.proxmox.privileges import Duty, container_duties, granting, storage_duties
from syncd.proxmox.upload import Uploads
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Finding


def examine(
    settings: ProxmoxTargetSettings,
    client: Client,
    placement: Placement,
    uploads: Uploads,
    folders: Folders,
) -> list[Finding]:
    """Return all findings; what cannot be asked is one finding itself, and the rest goes on."""
    subject = f"target {settings.name}"
    findings = list(_endpoints(client, subject))
    if not any(finding.ok for finding in findings):
        return findings
    try:
        findings += _nodes(placement, subject)
        findings += _storages(placement, subject)
        places = placement.places()
        findings += _chosen(client, places, folders, uploads, subject)
        findings += _duties(settings, client, places[0], folders, subject)
    except SyncdError as exc:
        findings.append(Finding(False, subject, str(exc)))
    return findings


def _endpoints(client: Client, subject: str) -> Iterator[Finding]:
    for endpoint in client.endpoints:
        try:
            version = client.ask(endpoint, "version")["version"]
        except SyncdError as exc:
            yield Finding(False, subject, str(exc))
        else:
            yield Finding(True, subject, f"{endpoint} is Proxmox VE {version}")


def _nodes(placement: Placement, subject: str) -> Iterator[Finding]:
    yield Finding(True, subject, f"nodes online: {', '.join(sorted(placement.nodes()))}")
    if offline := placement.offline():
        detail = f"nodes offline: {', '.join(sorted(offline))}; they are made up once they are back"
        yield Finding(True, subject, detail)


def _storages(placement: Placement, subject: str) -> Iterator[Finding]:
    for storage in placement.storages():
        content = ",".join(sorted(storage.content))
        state = "enabled" if storage.enabled else "disabled"
        shared = "shared" if storage.shared else "not shared"
        detail = f"storage {storage.name}: {state}, {shared}, content {content}"
        yield Finding(True, subject, detail)


def _chosen(
    client: Client, places: list[Place], folders: Folders, uploads: Uploads, subject: str
) -> Iterator[Finding]:
    for place in places:
        how = "uploaded"
        if folders.configured and folders.of(place) is not None:
            try:
                how = f"written at {folders.usable(place)}"
            except PublishError as exc:
                yield Finding(False, subject, str(exc))
                continue
        elif client.is_local:
            yield Finding(True, subject, f"{place.label} is out of pvesh's reach; see endpoints")
            continue
        detail = f"templates go to {place.label}, {how}: {place.free / 1e9:.1f} GB free"
        yield Finding(True, subject, detail)
    if not folders.configured and uploads.spool() is None:
        yield Finding(
            True,
            subject,
            "without Sys.Audit on /nodes nobody tells how much room there is for spooled uploads",
        )


def _duties(
    settings: ProxmoxTargetSettings,
    client: Client,
    place: Place,
    folders: Folders,
    subject: str,
) -> Iterator[Finding]:
    """Hold what the token may do against what it has to; containers only where configured."""
    duties = [
        duty
        for duty in storage_duties(place.storage.name)
        if not (duty.name == "upload" and folders.configured and folders.of(place) is not None)
    ]
    if settings.rootfs_storage is not None:
        duties += container_duties(settings.rootfs_storage, settings.bridge, settings.pool)
    for duty in duties:
        yield _duty(settings, client, duty, subject)


def _duty(settings: ProxmoxTargetSettings, client: Client, duty: Duty, subject: str) -> Finding:
    held = client.get("access/permissions", path=duty.path).get(duty.path, {})
    missing = duty.missing(held)
    if not missing:
        return Finding(True, subject, f"may {duty.name} ({duty.path})")
    return Finding(
        False,
        subject,
        f"may not {duty.name}: {', '.join(missing)} on {duty.path} is missing; "
        f"{granting(settings.token_id, duty.path, missing)}",
    )
