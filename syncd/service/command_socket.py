"""The Unix socket over which commands reach the daemon of their state.

The socket has its final mode before anybody may connect: root and the service's user get in, and
the members of the group where the file can be that group's.  What each may do is said by
`syncd.web`.  A file that a dead daemon left is replaced; a socket that somebody listens on is not.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncd.errors import ConfigError
from syncd.files import hand_over, make_folder

_HINT = "set server.socket to a path in a folder that the daemon may write"


@contextmanager
def command_socket(path: Path, group: int | None) -> Iterator[socket.socket]:
    """Give the bound socket, not yet listening; its file is gone when the context ends.

    `group` is the id of the group whose members may connect.  Raise ConfigError when the socket
    cannot be made, or another daemon has it.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(bound, path, group)
        yield bound
        with suppress(OSError):
            path.unlink()
    finally:
        bound.close()


def _bind(bound: socket.socket, path: Path, group: int | None) -> None:
    try:
        make_folder(path.parent)
        _remove_dead(path)
        bound.bind(str(path))
        hand_over(path, path.parent)
        path.chmod(0o600)
        if group is not None and _belongs_to(path, group):
            path.chmod(0o660)
    except OSError as exc:  # one of Python's own, for a long path, has no strerror
        raise ConfigError(
            f"no command reaches the daemon over {path}: {exc.strerror or exc}", hint=_HINT
        ) from exc


def _remove_dead(path: Path) -> None:
    """Remove a socket that nobody listens on; raise ConfigError if somebody does, or OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is there and is no socket", hint=_HINT)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise ConfigError(f"another daemon listens on {path}", hint=_HINT)


def _belongs_to(path: Path, group: int) -> bool:
    """Give the file to a group where this process may; return whether it is the group's."""
    with suppress(OSError):
        os.chown(path, -1, group)
    return path.stat().st_gid == group
