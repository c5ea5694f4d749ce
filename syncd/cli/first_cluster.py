"""The cluster of a first configuration: its nodes, whom to trust, its storage, the token's duties.

On a Proxmox VE host root is offered what is there: the endpoints of the cluster's nodes, its CA,
and its storages.  The token gets the privileges for the duties that are wanted, and no other.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from pathlib import Path

from syncd.cli import console
from syncd.cli.first_target import FirstTarget, TargetOptions, ask_directory, storage_name
from syncd.cli.questions import Questions
from syncd.config import ProxmoxTargetSettings, Value, check_value
from syncd.errors import PublishError, RequestError
from syncd.targets.proxmox import (
    Offer,
    Survey,
    container_duties,
    on_a_node,
    replacement_duties,
    setup_commands,
    storage_duties,
    survey,
)

CLUSTER_CA = Path("/etc/pve/pve-root-ca.pem")
_OTHER_CERTIFICATE = Path("/etc/pve/local/pveproxy-ssl.pem")
"""What pveproxy shows in place of a certificate of the cluster's CA (pveproxy(8))."""
_PUBLIC = "public"
_EVERYBODY = 0o004


def ask_target(questions: Questions, options: TargetOptions) -> FirstTarget:
    """Return the target that is chosen; raise RequestError where the options name two."""
    if options.is_cluster and options.directory is not None:
        raise RequestError("--directory is for a folder of this host, the others are for a cluster")
    if options.is_cluster or options.directory is not None:
        in_cluster = options.is_cluster
    else:
        in_cluster = questions.answer(
            "Where templates go: 1 a Proxmox VE cluster, by its API; 2 a folder of this host",
            "--endpoint or --directory",
            _is_first,
            default=("1" if on_a_node() else "2") if questions.asking else None,
        )
    return _ask_cluster(questions, options) if in_cluster else ask_directory(questions, options)


def _is_first(text: str) -> bool:
    if text not in ("1", "2"):
        raise ValueError("write 1 or 2")
    return text == "1"


def _ask_cluster(questions: Questions, options: TargetOptions) -> FirstTarget:
    offered = _offered()
    endpoints = questions.several(
        "Nodes of the cluster, parted by blanks",
        "--endpoint",
        _endpoint,
        options.endpoints,
        offered.endpoints,
    )
    trust = questions.answer(
        "Their certificate: the CA's file, the fingerprint (pvenode cert info), or public",
        "--ca-file or --fingerprint",
        _trusted,
        options.trust,
        _usual_trust(),
    )
    storage = _ask_storage(questions, "templates", "--storage", options.storage, offered.templates)
    token_id = questions.answer(
        "Name of the API token", "--token-id", _token, options.token_id, "syncd@pve!sync"
    )
    table: dict[str, Value] = {
        "name": "cluster",
        "type": "proxmox",
        "endpoints": tuple(endpoints),
        "token_id": token_id,
        **trust,
        "storage": storage,
    }
    duties = [*storage_duties(storage)]
    if not questions.agree("Delete old versions there, too?", options.delete, default=True):
        duties = [duty for duty in duties if duty.name != "delete"]
    wanted = True if options.rootfs_storage else None
    if questions.agree("Make and replace containers, too?", wanted, default=False):
        containers = _containers(questions, options, offered)
        table |= containers
        roots, pool = containers["rootfs_storage"], containers.get("pool")
        duties += container_duties([roots], [containers["bridge"]], pool)
        duties += replacement_duties(roots, pool)
    ca = trust.get("ca_file")
    hidden = ca if isinstance(ca, Path) and not ca.stat().st_mode & _EVERYBODY else None
    return FirstTarget(table, unreadable_ca=hidden, commands=setup_commands(token_id, duties))


def _containers(questions: Questions, options: TargetOptions, offered: Survey) -> dict[str, str]:
    """Return the keys about containers."""
    keys = {
        "rootfs_storage": _ask_storage(
            questions,
            "their root file systems",
            "--rootfs-storage",
            options.rootfs_storage,
            offered.roots,
        ),
        "bridge": questions.answer("Their bridge", "--bridge", _bridge, options.bridge, "vmbr0"),
    }
    if pool := questions.answer("Their pool (Enter: none)", "--pool", _pool, options.pool, ""):
        keys["pool"] = pool
    return keys


def _offered() -> Survey:
    """Return what the cluster of this host offers, or nothing."""
    if not on_a_node():
        return Survey((), (), ())
    try:
        return survey(ProxmoxTargetSettings(name="cluster", type="proxmox"))
    except PublishError as exc:
        console.complain(f"  this node does not tell what it has: {exc}")
        return Survey((), (), ())


def _ask_storage(
    questions: Questions, purpose: str, option: str, given: str | None, offers: Sequence[Offer]
) -> str:
    told = "; ".join(
        f"{offer.name}, {'shared, ' if offer.shared else ''}{offer.free / 1e9:.0f} GB free"
        for offer in offers
    )

    def one_of(text: str) -> str:
        if offers and text not in {offer.name for offer in offers}:
            raise ValueError(f"no such storage for {purpose} is active; there are: {told}")
        return storage_name(text)

    return questions.answer(
        f"Storage for {purpose}" + (f" ({told})" if told else ""),
        option,
        one_of,
        given,
        offers[0].name if offers else None,
    )


def _endpoint(text: str) -> str:
    """Return the URL of a node's API, of which scheme and port may be left out."""
    address = text.removeprefix("https://").rstrip("/")
    url = f"https://{address}" if re.search(r"[^:]:[0-9]+$", address) else f"https://{address}:8006"
    check_value(ProxmoxTargetSettings, "endpoints", (url,))
    return url


def _usual_trust() -> str | None:
    """Return whom the nodes of this host's cluster are known by; None on another host."""
    if _OTHER_CERTIFICATE.exists():
        return _PUBLIC
    return str(CLUSTER_CA) if CLUSTER_CA.exists() else None


def _trusted(text: str) -> dict[str, Value]:
    """Return the key that says which certificates are trusted; none for the public CAs."""
    if text == _PUBLIC:
        return {}
    if re.fullmatch("[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+", text):
        check_value(ProxmoxTargetSettings, "fingerprint", text)
        return {"fingerprint": text.upper()}
    path = Path(text).absolute()
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise ValueError(
            f"{text!r} is no file of a CA ({exc}), no SHA-256 fingerprint, and not {_PUBLIC}"
        ) from exc
    return {"ca_file": path}


def _token(text: str) -> str:
    check_value(ProxmoxTargetSettings, "token_id", text)
    return text


def _bridge(text: str) -> str:
    check_value(ProxmoxTargetSettings, "bridge", text)
    return text


def _pool(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._/-]*", text):  # pve-poolid
        raise ValueError(f"{text!r} is no name of a pool")
    return text
