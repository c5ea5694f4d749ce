"""Two root file systems compared: every name, and everything a file system keeps of it.

A difference is a line that names the path, the property and both values, so that a failed test
says at once what was lost.  What is compared: type, mode, numeric owner, size and content, mtime
in nanoseconds, extended attributes, symlink targets, device numbers, and which names are hard
links of one file.  A directory's size and link count are the file system's own business.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

Properties = dict[str, object]

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def scan(root: Path, shift: int = 0) -> dict[bytes, Properties]:
    """Return the properties of everything below `root`, by path relative to it.

    `shift` is taken off owners: the first host id of the user namespace that unpacked the tree.
    """
    top = os.fsencode(root)
    found: dict[bytes, Properties] = {}
    names: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path in _walk(top):
        status = os.lstat(path)
        name = os.path.relpath(path, top)
        found[name] = _properties(path, status, shift)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            names[status.st_dev, status.st_ino].append(name)
    for group in names.values():
        for name in group:
            found[name]["hard links"] = sorted(group)
    return found


def differences(
    ours: dict[bytes, Properties],
    theirs: dict[bytes, Properties],
    ignore: Collection[tuple[bytes, str]] = (),
) -> list[str]:
    """Return what differs, a line each; nothing when the trees are equal.

    `ignore` holds (path, property) pairs in which the peer is known to be wrong.
    """
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        path = os.fsdecode(name)
        if name not in ours:
            lines.append(f"{path}: missing, but expected as {theirs[name]['type']}")
        elif name not in theirs:
            lines.append(f"{path}: {ours[name]['type']} that should not be there")
        else:
            mine, expected = ours[name], theirs[name]
            lines += [
                f"{path}: {key} is {mine.get(key)!r}, expected {expected.get(key)!r}"
                for key in sorted(mine.keys() | expected.keys())
                if mine.get(key) != expected.get(key) and (name, key) not in ignore
            ]
    return lines


def _walk(folder: bytes) -> Iterator[bytes]:
    for entry in os.scandir(folder):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _properties(path: bytes, status: os.stat_result, shift: int) -> Properties:
    kind = stat.S_IFMT(status.st_mode)
    properties: Properties = {
        "type": _TYPES[kind],
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "owner": (status.st_uid - shift, status.st_gid - shift),
        "mtime": status.st_mtime_ns,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }
    if kind == stat.S_IFREG:
        properties["size"] = status.st_size
        with Path(os.fsdecode(path)).open("rb") as file:
            properties["content"] = hashlib.file_digest(file, "sha256").hexdigest()
    elif kind == stat.S_IFLNK:
        properties["target"] = str(Path(os.fsdecode(path)).readlink())
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        properties["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return properties
