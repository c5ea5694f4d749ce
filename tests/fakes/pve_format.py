"""The named formats of PVE's parameters, as PVE::JSONSchema and its users register them.

Only those that the parameters of the double's calls name; a format that is missing here is
reported by `pve_schema` instead of being waved through.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable


def _matches(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> Callable[[str], bool]:
    compiled = re.compile(pattern, flags)
    return lambda value: compiled.fullmatch(value) is not None


def _address(version: int) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            return ipaddress.ip_address(value).version == version
        except ValueError:
            return False

    return check


def _interface(version: int, *words: str) -> Callable[[str], bool]:
    """Accept one of the words, or an address with its prefix length."""

    def check(value: str) -> bool:
        if value in words:
            return True
        try:
            return "/" in value and ipaddress.ip_interface(value).version == version
        except ValueError:
            return False

    return check


LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
IDENTIFIER = r"[a-z][a-z0-9_-]+"
STORAGE = r"[a-z][a-z0-9._-]*[a-z0-9]"
CONTENTS = "backup|images|import|iso|none|rootdir|snippets|vztmpl"

FORMATS: dict[str, Callable[[str], bool]] = {
    "disk-size": _matches(r"\d+(?:\.\d+)?[KMGT]?"),
    "dns-name": _matches(rf"{LABEL}(?:\.{LABEL})*"),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "lxc-ip-with-ll-iface": lambda value: _address(4)(value) or _address(6)(value.split("%")[0]),
    "mac-addr": _matches(r"[a-f0-9][02468ace](?::[a-f0-9]{2}){5}", re.IGNORECASE),
    "pve-configid": _matches(IDENTIFIER, re.IGNORECASE),
    "pve-ct-timezone": _matches(r"host|[A-Za-z0-9+_/-]+"),
    "pve-ipv4-config": _interface(4, "dhcp", "manual"),
    "pve-ipv6-config": _interface(6, "auto", "dhcp", "manual"),
    "pve-lxc-dev-string": _matches(r"/dev/.+"),
    "pve-lxc-mp-string": _matches(rf"/.+|{STORAGE}:.+", re.IGNORECASE),
    "pve-node": _matches(LABEL),
    "pve-poolid": _matches(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}"),
    "pve-startup-order": _matches(r"(?:order=)?\d+(?:,(?:up|down)=\d+)*|(?:up|down)=\d+.*"),
    "pve-storage-content": _matches(CONTENTS),
    "pve-storage-id": _matches(STORAGE, re.IGNORECASE),
    "pve-tag": _matches(r"[a-z0-9_][a-z0-9_+.-]*", re.IGNORECASE),
    "pve-task-status-type": _matches("ok|error|warning|unknown"),
    "pve-vmid": _matches(r"[1-9][0-9]{2,8}"),
    "pve-volume-id": _matches(rf"{STORAGE}:\S+", re.IGNORECASE),
}
