"""The names of an image's users and groups, as its own /etc/passwd and /etc/group have them.

GNU tar writes the names of users and groups into the text of an ACL, never their ids.  Such a name
means what it means inside the image.  The files are read when the first name is asked for; a file
that is missing, odd or large knows no names.

Source: passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from syncd.convert.overlay import Tree
from syncd.convert.template_writer import read_into

_LARGEST = 1 << 20  # bytes of a file that is looked at
_IDS = range((1 << 32) - 1)  # the last id of 32 bits means none


class AccountNames:
    """The names in one tree; `contents` holds for each layer the open file of its contents."""

    def __init__(self, tree: Tree, contents: Sequence[int]) -> None:
        self._tree = tree
        self._contents = contents

    @cached_property
    def users(self) -> Mapping[bytes, int]:
        """The ids of users by name; raise StorageError when the scratch file cannot be read."""
        return self._ids(b"etc/passwd")

    @cached_property
    def groups(self) -> Mapping[bytes, int]:
        """The ids of groups by name; raise StorageError when the scratch file cannot be read."""
        return self._ids(b"etc/group")

    def _ids(self, path: bytes) -> dict[bytes, int]:
        """Read the third field of each line by the first; the first line of a name counts."""
        found: dict[bytes, int] = {}
        for line in self._content(path).split(b"\n"):
            name, *fields = line.split(b":")
            if len(fields) > 1 and fields[1].isdigit() and len(fields[1]) <= len(str(_IDS.stop)):
                number = int(fields[1])
                if number in _IDS:
                    found.setdefault(name, number)
        return found

    def _content(self, path: bytes) -> bytes:
        """Return a small file's content; nothing where there is none.

        Frames are not read: the content of a file that has some counts as zeros.
        """
        entry = self._tree.find(path)
        if entry is None or entry.member.size > _LARGEST:
            return b""
        content = bytearray(entry.member.size)
        for at, length, place in entry.member.extents:
            with memoryview(content) as view:
                read_into(self._contents[entry.layer], place, view[at : at + length])
        return bytes(content)
