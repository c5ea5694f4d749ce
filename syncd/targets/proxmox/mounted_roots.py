"""The root file systems of stopped containers, mounted on the node where this process is root.

The API gives nobody access to files in volumes.  `pct mount`, which has no call of the API, mounts
a container below /var/lib/lxc and locks it (`lock: mounted`) until `pct unmount`, which removes no
other lock.

Source: `mount` and `unmount` of PVE::CLI::pct, in the package pve-container.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncd.errors import PublishError, RequestError, StorageError
from syncd.files import carry, check_carried
from syncd.progress import Advance
from syncd.targets.root_swap import SSH_HOST_KEYS, RootSwap

LOCK = "mounted"
"""The lock of a container that is mounted."""
_BY_HAND = (
    "over the API nobody reads a container's volumes; run syncd as root on the container's node, "
    "or copy by hand there: `pct shutdown VMID`, `pct mount VMID`, copy from the old root (`pvesm "
    "path VOLUME` tells where it is), `pct unmount VMID`, `pct start VMID`"
)
_PROGRAM = "pct"
_ROOTS = Path("/var/lib/lxc")
_STATUS = Path("/proc/self/status")
_CAP_SYS_ADMIN = 1 << 21
_TIMEOUT = 120.0  # seconds for a file system that has to be checked first


def can_mount(node: str) -> bool:
    """Tell whether this process may mount the roots of a node's containers.

    The service may not, even as root: its unit leaves it no capabilities.
    """
    here = socket.gethostname().partition(".")[0]
    return (
        node == here and os.geteuid() == 0 and _is_capable() and shutil.which(_PROGRAM) is not None
    )


def carried_over(node: str, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the paths to carry over on a node: those that are wanted, else SSH host keys.

    Raise RequestError for what is no path, and where a wish cannot be fulfilled; without a wish,
    nothing is carried over there.
    """
    if wanted is None:
        return (SSH_HOST_KEYS,) if can_mount(node) else ()
    try:
        paths = tuple(check_carried(path) for path in wanted)
    except ValueError as exc:
        raise RequestError(f"nothing can be carried over: {exc}") from exc
    if paths and not can_mount(node):
        raise RequestError(f"{', '.join(paths)} cannot be carried over", _BY_HAND)
    return paths


def carry_over(swap: RootSwap, advance: Advance) -> int:
    """Ensure that the new root, which the throw-away container has, gets what is carried over.

    Both containers are stopped.  Return how many files were carried.  Raise PublishError.
    """
    if swap.scratch is None:
        raise PublishError("there is no throw-away container to carry files into")
    with _mounted(swap.vmid) as old, _mounted(swap.scratch) as new:
        try:
            return sum(carry(path, old, new, advance) for path in swap.carry)
        except StorageError as exc:
            raise PublishError(exc.what, exc.hint) from exc


def release(vmid: int, node: str) -> None:
    """Unmount a container that is locked as mounted, which removes the lock.

    Raise PublishError where this process cannot do that.
    """
    if not can_mount(node):
        raise PublishError(
            f"container {vmid} is still mounted on {node}",
            f"as root on {node}: pct unmount {vmid}",
        )
    _run("unmount", vmid)


def _is_capable() -> bool:
    """Tell whether this process may mount file systems (capabilities(7), proc_pid_status(5))."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", _STATUS.read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & _CAP_SYS_ADMIN)


@contextmanager
def _mounted(vmid: int) -> Iterator[Path]:
    """Give the root of a stopped container, which is unmounted afterwards; raise PublishError."""
    try:
        _run("mount", vmid)
    except PublishError:
        with suppress(PublishError):  # it may be mounted in part, and locked
            _run("unmount", vmid)
        raise
    try:
        yield _ROOTS / str(vmid) / "rootfs"
    finally:
        _run("unmount", vmid)


def _run(verb: str, vmid: int) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and a number as the argument
            [_PROGRAM, verb, str(vmid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | {"LC_ALL": "C"},
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PublishError(f"{_PROGRAM} {verb} {vmid} is not possible: {exc}") from exc
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise PublishError(f"{_PROGRAM} {verb} {vmid} failed: {reason or done.returncode}")
