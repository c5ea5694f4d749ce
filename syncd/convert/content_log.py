"""What follows the contents of a layer while it is unpacked, so that parts are found again."""

from __future__ import annotations

from typing import Protocol

from syncd.convert.frame_store import FrameSizes
from syncd.tar import Member


class ContentLog(Protocol):
    """Follows the contents of one layer, and writes down what it will be asked for later."""

    def begin(self, member: Member) -> None:
        """Hear that this member's content comes next; its extents are places in the tar."""

    def take(self, content: memoryview) -> None:
        """Take the next bytes of the content."""

    def encoded(self, sizes: FrameSizes) -> bytes:
        """Return what is kept with the layer, once every content is where it stays."""
