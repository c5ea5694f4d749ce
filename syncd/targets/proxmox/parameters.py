"""What a creation is asked for with: the parameters of `POST /nodes/{node}/lxc`, and refusals.

Also here: the changes of the configuration that follow the creation.  With an `oci` template,
Proxmox VE replaces the `env` and `entrypoint` of the creation by those of the image, so the
requested ones are set afterwards, before the first start (measured on pve-container 6.1.10).
With a `rootfs` template everything is part of the creation, and an image that starts no init gets
the console and the network that Proxmox VE gives to an `oci` template.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from syncd.errors import RequestError
from syncd.formats import Format
from syncd.targets.container import ContainerSpec, Startup
from syncd.targets.property_string import options_of
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import ContainerConfig
from syncd.targets.target import PublishedImage

STARTUP_SINCE = (9, 1)
"""The first version whose API takes `entrypoint`, `env` and `host-managed`."""
_NETWORK = re.compile(r"net[0-9]+")
_TOKENS_MAY = ("nesting",)
_AS_IT_IS = (
    "hostname",
    "cores",
    "cpulimit",
    "memory",
    "swap",
    "nameserver",
    "searchdomain",
    "ostype",
    "cmode",
    "unprivileged",
    "onboot",
    "startup",
    "protection",
    "timezone",
    "hookscript",
)
"""Options that have the same name and value in the API and in a request."""


def check(
    request: ContainerSpec,
    form: Format,
    startup: Startup,
    version: tuple[int, int],
    *,
    as_root: bool,
) -> None:
    """Raise RequestError for a request that Proxmox VE could not fulfil with this template.

    `as_root` tells that `pvesh` asks, as root@pam; else an API token asks.
    """
    if as_root:
        _check_arguments(request, startup)
    else:
        _check_root_only(request)
    if form is Format.OCI and not request.unprivileged:
        # The task would fail: "setgid(0): Invalid argument" (pve-container 6.1.10).
        raise RequestError(
            "Proxmox VE makes no privileged container from an OCI archive",
            'set format = "rootfs" on the [[image]], or ask for an unprivileged container',
        )
    named = [name for name in ("entrypoint", "env") if getattr(request, name)]
    if named and version < STARTUP_SINCE:
        raise RequestError(
            f"this Proxmox VE has no parameter for {' and '.join(named)}",
            "upgrade to 9.1 or later, or set it inside the image",
        )


def _check_root_only(request: ContainerSpec) -> None:
    """Raise RequestError for what Proxmox VE allows to root@pam only, never to a token."""
    features = options_of(request.features) if request.features else {}
    if refused := [name for name in features if name not in _TOKENS_MAY]:
        raise RequestError(
            f"the features {', '.join(refused)} are refused to API tokens",
            "only root@pam itself may set them: pct set VMID --features ... on the node",
        )
    if bound := [name for name, line in request.mounts.items() if line.startswith("/")]:
        raise RequestError(
            f"bind mounts are refused to API tokens: {', '.join(bound)}",
            "only root@pam itself may set them: pct set VMID --mp0 ... on the node",
        )
    if request.hookscript:
        raise RequestError(
            "a hookscript is refused to API tokens",
            "only root@pam itself may set it: pct set VMID --hookscript ... on the node",
        )


def _check_arguments(request: ContainerSpec, startup: Startup) -> None:
    """Raise RequestError for what may not be, or cannot be, an argument of pvesh."""
    if request.password is not None:
        raise RequestError(
            "the password would be an argument of pvesh, which every user of the node can read",
            "give ssh keys, or configure endpoints and a token",
        )
    if request.env and "\0" in merged(startup.env, request.env):
        # An argument ends at NUL (execve(2)), which parts the variables.
        raise RequestError(
            "pvesh takes one variable at most, those of the image included",
            "configure endpoints and a token",
        )


def of_creation(
    request: ContainerSpec, access: ClusterAccess, storage: str, volid: str, image: PublishedImage
) -> dict[str, object]:
    """Return the parameters of the creation that every version takes.

    An unprivileged container that runs an init may nest namespaces unless features were asked for:
    systemd needs that for the sandboxes of its services, and the web UI of Proxmox VE sets it, too.
    """
    init = Startup(request.entrypoint or image.startup.entrypoint).starts_init
    params: dict[str, object] = {
        "ostemplate": volid,
        "rootfs": f"{storage}:{request.size}",
        **{name: _sent(getattr(request, name)) for name in _AS_IT_IS},
        "features": request.features or ("nesting=1" if init and request.unprivileged else None),
        **_networks(request, access),
        **request.mounts,
        "description": image.origin.ending(request.description or ""),
        "tags": ";".join(request.tags) or None,
        "ssh-public-keys": "\n".join(request.ssh_keys) or None,
        "password": request.password.get_secret_value() if request.password else None,
        "pool": request.pool or access.pool,
    }
    return {key: value for key, value in params.items() if value is not None}


def for_rootfs(
    params: dict[str, object],
    request: ContainerSpec,
    startup: Startup,
    version: tuple[int, int],
    *,
    as_root: bool,
) -> list[str]:
    """Add to `params` how the image wants to be run; return warnings for what has no parameter."""
    wanted = {
        "entrypoint": request.entrypoint or startup.entrypoint,
        "env": merged(startup.env, request.env),
    }
    wanted = {key: value for key, value in wanted.items() if value}
    if wanted and version < STARTUP_SINCE:
        return [
            f"this Proxmox VE has no parameter for the image's {' and '.join(wanted)}; "
            "the container runs /sbin/init"
        ]
    warnings = list(startup.warnings)
    if as_root and "\0" in wanted.get("env", ""):
        del wanted["env"]
        warnings.append("pvesh takes one variable at most: env is left out")
    params |= wanted
    if not Startup(wanted.get("entrypoint", "")).starts_init:
        params.setdefault("cmode", "console")
        for name in filter(_NETWORK.fullmatch, list(params)):
            if "host-managed" not in options_of(str(params[name])):
                params[name] = f"{params[name]},host-managed=1"
    return warnings


def after_oci(
    request: ContainerSpec, startup: Startup, config: ContainerConfig
) -> dict[str, object]:
    """Return the changes of the configuration that follow a creation from an `oci` template."""
    changes: dict[str, object] = {}
    if request.entrypoint:
        changes["entrypoint"] = request.entrypoint
    if request.env:
        changes["env"] = merged(config.get("env", startup.env), request.env)
    return changes


def merged(env: str, added: Mapping[str, str]) -> str:
    """Return variables as the API takes them, parted by NUL; the added ones win."""
    kept = [entry for entry in env.split("\0") if entry and entry.partition("=")[0] not in added]
    return "\0".join([*kept, *(f"{name}={value}" for name, value in added.items())])


def _networks(request: ContainerSpec, access: ClusterAccess) -> dict[str, str]:
    """Return the lines of the interfaces: without any, one that asks DHCP."""
    if request.networks and request.bridge is None:
        return request.networks
    bridge = request.bridge or access.bridge
    return {"net0": f"name=eth0,ip=dhcp,bridge={bridge}", **request.networks}


def _sent(value: object) -> object:
    """Return a value as the API takes it: a boolean as 0 or 1."""
    return int(value) if isinstance(value, bool) else value
