"""Options of Proxmox VE that are written as `key=value,key=value`: patterns that check them.

The patterns follow the official description of `POST /nodes/{node}/lxc` and mean the same in Python
and in ECMA-262, whose patterns JSON Schema takes.  What they match, Proxmox VE accepts; of several
ways to write a value, such as 1 and yes, they match one.

Sources: https://pve.proxmox.com/pve-docs/api-viewer/ and, for the named formats,
`PVE::JSONSchema` and `PVE::LXC::Config`.
"""

from __future__ import annotations

from collections.abc import Mapping

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
"""A part of a host name."""
DOMAIN = rf"{LABEL}(?:\.{LABEL})*"
STORAGE = "[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]"
"""The name of a storage."""
_FLAG = "[01]"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H = "[0-9A-Fa-f]{1,4}"
IPV6 = (
    rf"(?:(?:{_H}:){{7}}{_H}|(?:{_H}:){{1,7}}:|"
    + "|".join(rf"(?:{_H}:){{1,{7 - n}}}(?::{_H}){{1,{n}}}" for n in range(1, 7))
    + rf"|:(?:(?::{_H}){{1,7}}|:))"
)
_MAC = "[0-9A-Fa-f][02468ACEace](?::[0-9A-Fa-f]{2}){5}"
_MTU = (  # 64 to 65535
    "(?:6[4-9]|[7-9][0-9]|[1-9][0-9]{2,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}"
    "|655[0-2][0-9]|6553[0-5])"
)
_VLAN = "(?:[1-9][0-9]{0,2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-4])"  # 1 to 4094
_INTERFACE = "[-_.A-Za-z0-9]{1,15}"  # IFNAMSIZ of Linux, without its NUL
_MOUNT_OPTION = "(?:discard|lazytime|noatime|nodev|noexec|nosuid)"
_ID_MAP = "[ug]:[0-9]+:[0-9]+:[1-9][0-9]*"
# No comma and no =, which part the options, no blank, and no component `.` or `..`.
_PATH = r"(?:/(?!\.{1,2}(?:/|,|$))[!-+\--.0-<>-~]+)+"

_NETWORK = {
    "bridge": "[-_.A-Za-z0-9]+",
    "firewall": _FLAG,
    "gw": IPV4,
    "gw6": IPV6,
    "host-managed": _FLAG,
    "hwaddr": _MAC,
    "ip": rf"(?:dhcp|manual|{IPV4}/(?:3[0-2]|[12]?[0-9]))",
    "ip6": rf"(?:auto|dhcp|manual|{IPV6}/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))",
    "link_down": _FLAG,
    "mtu": _MTU,
    "rate": r"[0-9]+(?:\.[0-9]+)?",
    "tag": _VLAN,
    "trunks": rf"{_VLAN}(?:;{_VLAN})*",
    "type": "veth",
}
_MOUNT = {
    "acl": _FLAG,
    "backup": _FLAG,
    "idmap": rf"(?:passthrough|{_ID_MAP}(?:;{_ID_MAP})*)",
    "keepattrs": _FLAG,
    "mountoptions": rf"{_MOUNT_OPTION}(?:;{_MOUNT_OPTION})*",
    "quota": _FLAG,
    "replicate": _FLAG,
    "ro": _FLAG,
    "shared": _FLAG,
}
_FEATURES = {
    **dict.fromkeys(("force_rw_sys", "fuse", "keyctl", "mknod", "nesting"), _FLAG),
    "mount": "[A-Za-z0-9_]+(?:;[A-Za-z0-9_]+)*",
}


def _options(options: Mapping[str, str], first: str | None = None) -> str:
    """Return a pattern of options in any order, each at most once, after `first` if given."""
    once = "".join(rf"(?!(?:.*,)?{key}=.*,{key}=)" for key in options)
    option = f"(?:{'|'.join(f'{key}={value}' for key, value in options.items())})"
    if first is None:
        return rf"^{once}{option}(?:,{option})*$"
    return rf"^{once}{first}(?:,{option})*$"


NETWORK = _options(_NETWORK, f"name={_INTERFACE}")
"""A line `netN`, which begins with the interface's name in the container."""
MOUNT = _options(_MOUNT, rf"(?:{STORAGE}:[0-9]+(?:\.[0-9]+)?|{_PATH}),mp={_PATH}")
"""A line `mpN`: a new volume as STORAGE:GIB, or a path on the node, and where it is mounted.

A volume that exists is no value: Proxmox VE would unpack the template into it.
"""
FEATURES = _options(_FEATURES)
STARTUP = (
    "^(?:(?:order=)?[0-9]+(?:,up=[0-9]+)?(?:,down=[0-9]+)?|up=[0-9]+(?:,down=[0-9]+)?|down=[0-9]+)$"
)
_ADDRESS = rf"(?:{IPV4}|{IPV6}(?:%[-_.A-Za-z0-9]+)?)"
NAMESERVERS = rf"^{_ADDRESS}(?: {_ADDRESS})*$"
DOMAINS = rf"^{DOMAIN}(?: {DOMAIN})*$"


def options_of(line: str) -> dict[str, str]:
    """Return the options of a line by key; the key of a first value without one is empty."""
    return {
        key if equals else "": value if equals else key
        for key, equals, value in (part.partition("=") for part in line.split(","))
    }
