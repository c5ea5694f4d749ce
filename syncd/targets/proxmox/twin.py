"""What a new container needs to stand beside an old one: the old one's options, but its own place.

Pure.  Data volumes belong to one container and addresses to one machine, so they are not taken
over; what is left out is said.
"""

from __future__ import annotations

from syncd.errors import RequestError
from syncd.targets.proxmox.guest_config import GuestConfig, size_of, storage_of
from syncd.targets.root_swap import Twin

_NUMBERS = ("cores", "memory", "swap")
_TAKEN = {"hostname", "arch", "ostype", "rootfs", "net0", "features", "tags", "unprivileged",
          "description", "entrypoint", "env", "cmode", "lock", *_NUMBERS}  # fmt: skip


def twin_of(config: GuestConfig, node: str) -> Twin:
    """Return the fields of a request for a container like this one, and what they leave out.

    Raise RequestError where the old container's root or network cannot be described so.
    """
    fields: dict[str, object] = {
        "hostname": config.text("hostname"),
        "node": node,
        "storage": storage_of(config.root),
        "size": size_of(config.root),
        "unprivileged": config.flag("unprivileged"),
    }
    for key in _NUMBERS:
        if (number := config.text(key)) is not None:
            fields[key] = int(number)
    warnings = []
    if network := config.text("net0"):
        fields["net0"] = _network(network)
    features = [part for part in (config.text("features") or "").split(",") if part]
    if nesting := [part for part in features if part.startswith("nesting=")]:
        fields["features"] = ",".join(nesting)
    if tags := config.text("tags"):
        fields["tags"] = tags.split(";")
    left_out = sorted(
        key for key in config.options if key not in _TAKEN and not key.startswith("unused")
    )
    left_out += sorted(part for part in features if not part.startswith("nesting="))
    if left_out:
        warnings.append(f"not taken over: {', '.join(left_out)}")
    return Twin(fields, tuple(warnings))


def _network(line: str) -> str:
    """Return an interface without the hardware address; raise RequestError for a static address."""
    parts = [part for part in line.split(",") if not part.startswith("hwaddr=")]
    for part in parts:
        key, _, value = part.partition("=")
        if key in ("ip", "ip6") and value not in ("dhcp", "auto", "manual"):
            raise RequestError(
                f"the old container has the address {value}, which two containers cannot have",
                "make the new one with syncd create, and an address of its own",
            )
    return ",".join(parts)
