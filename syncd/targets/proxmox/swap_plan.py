"""Whether a container's root can be replaced, and by which keys; and the options afterwards.

Pure: decides, and calls nothing.  What is refused here is answered 200 by Proxmox VE and does harm
(measured on pve-container 6.1.10), or cannot be undone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace

from syncd.errors import RequestError
from syncd.formats import Format
from syncd.targets.container import Startup
from syncd.targets.proxmox.guest_config import (
    MOUNT_POINTS,
    UNUSED_VOLUMES,
    GuestConfig,
    size_of,
    storage_of,
)
from syncd.targets.root_swap import Guest, RootSwap, SwapOrder

_ADDRESSED = re.compile(r"^name=.*[,](ip=(?!manual)|ip6=(?!manual))")
_OF_IMAGE = ("entrypoint", "cmode")
"""Options that Proxmox VE takes from an OCI image, besides the variables."""


def planned(
    guest: Guest, *, now: GuestConfig, later: GuestConfig, order: SwapOrder, by_pvesh: bool
) -> RootSwap:
    """Return the plan of a swap; raise RequestError, which names why there can be none.

    `now` is the configuration in force, `later` the one after the next start.  `by_pvesh` tells
    that each call of the API is a run of `pvesh`.
    """
    vmid = guest.vmid
    _check(vmid, now, later, order)
    known_before = _variables(order.old_startup)
    variables = _merged(order.startup.env, known_before, now)
    if by_pvesh and len(variables) > 1 and variables != _parsed(now.text("env")):
        # An argument ends at NUL (execve(2)), which parts the variables.
        raise RequestError(
            f"the variables of container {vmid} change ({', '.join(sorted(variables))}), and pvesh "
            "sets one at most",
            "configure endpoints and a token",
        )
    mount_key = now.free("mp", MOUNT_POINTS)
    # One more unused key: the detached new root takes the lowest free one.
    unused_key = now.free("unused", UNUSED_VOLUMES, taken=1)
    if mount_key is None or unused_key is None:
        raise RequestError(
            f"container {vmid} has no free key for a mount point and two unused volumes",
            "remove unused volumes: pct set VMID --delete unusedN",
        )
    startup = {"entrypoint": order.startup.entrypoint, "env": order.startup.env}
    mark = secrets.token_hex(6)
    return RootSwap(
        vmid=vmid,
        node=guest.node,
        image=str(order.image.image),
        template=order.template,
        mark=mark,
        old_root=now.root,
        mount_key=mount_key,
        unused_key=unused_key,
        size=size_of(now.root),
        hostname=now.text("hostname") or f"CT{vmid}",
        was_running=guest.running,
        unprivileged=now.flag("unprivileged"),
        protected=now.flag("protection"),
        has_address=any(_ADDRESSED.search(value) for value in now.options.values()),
        description=order.image.ending(now.text("description") or ""),
        startup={key: value for key, value in startup.items() if value}
        if order.form is Format.ROOTFS
        else {},
        known_before=known_before,
        snapshot=f"syncd-{mark}" if order.snapshot else "",
    )


def _check(vmid: int, now: GuestConfig, later: GuestConfig, order: SwapOrder) -> None:
    storage_of(now.root)
    reasons = [
        (now.text("lock"), f"is locked ({now.text('lock')})", "wait until its task has ended"),
        (now.flag("template"), "is a template", "replace a clone of it"),
        (
            any(key.startswith("lxc.idmap") for key in now.raw_lines) or ",idmap=" in now.root,
            "has an id mapping of its own (lxc.idmap), which a new root would not have",
            "make a new container",
        ),
        (
            order.form is Format.OCI and not now.flag("unprivileged"),
            "is privileged, and Proxmox VE unpacks an OCI archive for unprivileged ones only",
            'set format = "rootfs" on the [[image]]',
        ),
        (
            now.options != later.options,
            f"has pending changes ({', '.join(_changed(now, later))})",
            "restart the container, or revert them, first",
        ),
    ]
    for refused, reason, hint in reasons:
        if refused:
            raise RequestError(f"container {vmid} {reason}", hint)


def _changed(now: GuestConfig, later: GuestConfig) -> list[str]:
    keys = now.options.keys() | later.options.keys()
    return sorted(key for key in keys if now.options.get(key) != later.options.get(key))


def with_options(swap: RootSwap, now: GuestConfig, scratch: GuestConfig) -> RootSwap:
    """Return the swap with the container's options before and after it, and with warnings.

    `scratch` is the throw-away container, whose options Proxmox VE took from the new image.  A
    variable that the container has otherwise than its old image is the person's, and stays.  Where
    the old image is not known, all variables of the container stay.
    """
    after: dict[str, str | None] = {"description": swap.description}
    env = scratch.text("env") or swap.startup.get("env")
    variables = _merged(env, swap.known_before, now)
    if variables != _parsed(now.text("env")):
        after["env"] = "\0".join(f"{key}={value}" for key, value in variables.items()) or None
    for key in _OF_IMAGE:
        if now.text(key) != scratch.text(key):
            after[key] = scratch.text(key)
    warnings = list(swap.warnings)
    if after.get("entrypoint", now.text("entrypoint")) != now.text("entrypoint"):
        warnings.append(f"the entrypoint changes from {now.text('entrypoint') or '/sbin/init'!r}")
    kept, wanted = now.raw_lines, scratch.raw_lines
    warnings += [
        f"the image wants {key} = {wanted.get(key)!r}, and the container keeps "
        f"{kept.get(key)!r}: no call of the API sets it"
        for key in sorted(kept.keys() | wanted.keys())
        if kept.get(key) != wanted.get(key)
    ]
    if now.text("ostype") != scratch.text("ostype"):
        warnings.append(
            f"ostype stays {now.text('ostype')!r}, and the new image is {scratch.text('ostype')!r}"
        )
    before = {key: now.text(key) for key in after}
    return replace(swap, before=before, after=after, warnings=tuple(warnings))


def _merged(env: str | None, known: Mapping[str, str], now: GuestConfig) -> dict[str, str]:
    """Return the variables of an image, and over them those that are the container's own."""
    mine = _parsed(now.text("env"))
    return _parsed(env) | {name: value for name, value in mine.items() if known.get(name) != value}


def _variables(startup: Startup | None) -> dict[str, str]:
    return _parsed(startup.env) if startup else {}


def _parsed(env: str | None) -> dict[str, str]:
    """Return the variables of an option `env`, by name."""
    pairs = (entry.partition("=") for entry in (env or "").split("\0") if entry)
    return {name: value for name, _, value in pairs}


def changes(options: Mapping[str, str | None]) -> dict[str, object]:
    """Return the parameters of a PUT that sets these options, and deletes those that are None."""
    given: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    gone = ",".join(key for key, value in options.items() if value is None)
    return given | ({"delete": gone} if gone else {})
