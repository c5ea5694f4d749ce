"""The shapes of what the Proxmox VE API answers, and the check of an answer against its shape.

Each class names the fields that syncd reads of one answer, and in its docstring the call that is
answered; other fields are left out when an answer is checked.  Types, and which fields may be
absent, follow the official description of the API (https://pve.proxmox.com/pve-docs/api-viewer/)
for Proxmox VE 8 and 9: a field that may be absent in one of the two is NotRequired.

Perl does not tell a number from its digits, so the API does not keep to its own description there:
a boolean is 0, 1, or one of them as a string, and a number may be a string.  `checked` turns such
values into the described type, and takes nothing else for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import (
    Any,
    NotRequired,
    TypedDict,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

T = TypeVar("T")

Permissions = dict[str, dict[str, bool]]
"""`GET /access/permissions`: by path the privileges held there, and whether they propagate."""


class Version(TypedDict):
    """`GET /version`; `version` is MAJOR.MINOR.PATCH, of pve-manager."""

    version: str


class Node(TypedDict):
    """An entry of `GET /nodes`; memory in bytes, absent without Sys.Audit and for offline nodes.

    `status` is online, offline, or unknown where nobody gathers statistics.
    """

    node: str
    status: str
    mem: NotRequired[int]
    maxmem: NotRequired[int]


class ClusterStatus(TypedDict):
    """An entry of `GET /cluster/status`; `type` is cluster or node, the rest is of a node.

    `ip` is what the node's name resolves to; `local` marks the node that answers.
    """

    type: str
    name: str
    ip: NotRequired[str]
    online: NotRequired[bool]
    local: NotRequired[bool]


class RootFileSystem(TypedDict):
    """The root file system of a node; free and total space in bytes."""

    avail: int
    total: int


class Kernel(TypedDict):
    """The kernel of a node; `machine` is the hardware, such as x86_64."""

    machine: str


_Kernel = TypedDict("_Kernel", {"current-kernel": NotRequired[Kernel]})


class NodeStatus(_Kernel):
    """`GET /nodes/{node}/status`, which takes Sys.Audit on the node."""

    rootfs: RootFileSystem


_ContentFolders = TypedDict("_ContentFolders", {"content-dirs": NotRequired[str]})


class StorageEntry(_ContentFolders):
    """An entry of `GET /storage`, which is a section of storage.cfg.

    The description of that call names the storage only; the other fields are the parameters of
    `POST /storage`, which writes such a section.  `content` is a comma-separated list.
    `content-dirs` is a list of CONTENT=FOLDER; `is_mountpoint` is a path or a boolean's word.
    """

    storage: str
    type: str
    content: NotRequired[str]
    shared: NotRequired[bool]
    disable: NotRequired[bool]
    path: NotRequired[str]
    is_mountpoint: NotRequired[str]


class NodeStorage(TypedDict):
    """An entry of `GET /nodes/{node}/storage`; space in bytes."""

    storage: str
    type: str
    shared: NotRequired[bool]
    active: NotRequired[bool]
    avail: NotRequired[int]
    total: NotRequired[int]


class ContentEntry(TypedDict):
    """An entry of `GET /nodes/{node}/storage/{storage}/content`; `size` in bytes.

    Version 8 always tells `size`; version 9 may tell `approximate-size` instead.
    """

    volid: str
    size: NotRequired[int]


class TaskEntry(TypedDict):
    """An entry of `GET /nodes/{node}/tasks`; `endtime` in seconds of Unix time.

    `endtime` is absent while the task runs.
    """

    upid: str
    endtime: NotRequired[int]


class TaskStatus(TypedDict):
    """`GET /nodes/{node}/tasks/{upid}/status`; `status` is running or stopped."""

    status: str
    exitstatus: NotRequired[str]


class LogLine(TypedDict):
    """An entry of `GET /nodes/{node}/tasks/{upid}/log`; `t` is the line's text."""

    t: str


class Resource(TypedDict):
    """An entry of `GET /cluster/resources`; `type` is lxc for a container.

    `name` is the host name of a container, `status` is running or stopped.
    """

    type: str
    vmid: NotRequired[int]
    node: NotRequired[str]
    name: NotRequired[str]
    status: NotRequired[str]
    pool: NotRequired[str]


class ContainerConfig(TypedDict):
    """`GET /nodes/{node}/lxc/{vmid}/config`; NUL parts the variables of `env`."""

    arch: NotRequired[str]
    description: NotRequired[str]
    env: NotRequired[str]
    lock: NotRequired[str]
    ostype: NotRequired[str]


class GuestFeature(TypedDict):
    """`GET /nodes/{node}/lxc/{vmid}/feature`; absent where Perl says no by saying nothing."""

    hasFeature: NotRequired[bool]


class SnapshotEntry(TypedDict):
    """An entry of `GET /nodes/{node}/lxc/{vmid}/snapshot`; `current` stands for the present."""

    name: str


class GuestStatus(TypedDict):
    """`GET /nodes/{node}/lxc/{vmid}/status/current`; `status` is running or stopped."""

    status: str


class GuestInterface(TypedDict):
    """An entry of `GET /nodes/{node}/lxc/{vmid}/interfaces`; an address has its prefix length."""

    name: str
    inet: NotRequired[str]
    inet6: NotRequired[str]


def checked(answer: object, shape: type[T]) -> T:
    """Return an answer in the shape that is described; raise ValueError, saying what is wrong.

    A shape is `str`, `int`, `bool`, a class of this module, a list of a shape, a dictionary with
    `str` as keys, or a union with None; of `object` nothing is checked.  An absent field and a
    field that is null are the same.
    """
    result: T = _checked(answer, shape, "the answer")
    return result


def _checked(answer: object, shape: Any, where: str) -> Any:
    """Do what `checked` promises for a part of an answer; `where` names the part in messages."""
    if shape is object:
        return answer
    if is_typeddict(shape):
        return _record(answer, shape, where)
    if isinstance(shape, UnionType):
        (inner,) = (part for part in get_args(shape) if part is not NoneType)
        return None if answer is None else _checked(answer, inner, where)
    if get_origin(shape) is list and isinstance(answer, list):
        (inner,) = get_args(shape)
        return [_checked(entry, inner, f"{where}[{i}]") for i, entry in enumerate(answer)]
    if get_origin(shape) is dict and isinstance(answer, Mapping):
        _, inner = get_args(shape)
        return {key: _checked(value, inner, f"{where}[{key!r}]") for key, value in answer.items()}
    if get_origin(shape) is None and isinstance(answer, str | int | float):
        return _scalar(answer, shape, where)
    raise _unfit(answer, shape, where)


def _record(answer: object, shape: Any, where: str) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        raise _unfit(answer, shape, where)
    found = {}
    for key, (inner, required) in _fields(shape).items():
        if answer.get(key) is not None:
            found[key] = _checked(answer[key], inner, f"{where}[{key!r}]")
        elif required:
            raise ValueError(f"{where} has no {key}")
    return found


@functools.cache
def _fields(shape: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field by its name, and whether the field is required."""
    return {
        key: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for key, hint in get_type_hints(shape, include_extras=True).items()
    }


def _scalar(answer: str | float, shape: Any, where: str) -> str | int | bool:
    """Return a string, number or boolean as the type that Perl did not tell from the others."""
    if shape is bool and answer in (0, 1, "0", "1", ""):  # Perl's own false is the empty string
        return answer in (1, "1")
    if not isinstance(answer, bool):
        if shape is str:
            return str(answer)
        if shape is int and isinstance(answer, float) and answer.is_integer():
            return int(answer)  # a large number: 1.5e+15
        if shape is int and re.fullmatch(r"-?\d{1,20}", str(answer)):
            return int(answer)
    raise _unfit(answer, shape, where)


def _unfit(answer: object, shape: Any, where: str) -> ValueError:
    return ValueError(f"{where} is {answer!r:.80}, not {getattr(shape, '__name__', shape)}")
