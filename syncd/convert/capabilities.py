"""File capabilities: the attribute `security.capability`, in the revision that every root can have.

Revision 3 names the root user of the user namespace that the file's capabilities are for, as an id
on the machine where the layer was written.  In a container with other ids Linux ignores such a
file's capabilities, and tar loses them without a word; revision 2 has no such id, and the kernel
adds the container's own when the file is extracted.  Pure.

Source: capabilities(7), "File capability extended attribute versioning"; linux/capability.h.
"""

from __future__ import annotations

import struct

NAME = b"security.capability"

_REVISION_2, _REVISION_3 = 2, 3
_NAMESPACED = struct.Struct("<I16sI")  # struct vfs_ns_cap_data: revision and flags, sets, root id
_FLAGS = 0x00FFFFFF


def without_root(value: bytes) -> tuple[bytes, int | None]:
    """Return the attribute in revision 2, and the root id that it had; None for other revisions.

    A value of another revision or size is returned as it is.
    """
    if len(value) != _NAMESPACED.size:
        return value, None
    head, sets, root = _NAMESPACED.unpack(value)
    if head >> 24 != _REVISION_3:
        return value, None
    return struct.pack("<I16s", _REVISION_2 << 24 | head & _FLAGS, sets), root
