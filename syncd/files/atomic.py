"""A file that gets its name only when all its bytes are written and on the disk.

The folder is not flushed: after a power cut the name stands for the old file or for the new file,
and both are whole.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from syncd.errors import StorageError
from syncd.files.flusher import Flusher


@contextmanager
def atomic_write(output: Path) -> Iterator[BinaryIO]:
    """Provide a file for writing, which gets the name `output` at the end of the block.

    The file is removed when the block raises; a file that had the name before stays then.  Raise
    StorageError when the disk refuses, and for a name that is taken by something else than a file:
    root would replace /dev/null by a file without a word.
    """
    hidden = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        if output.exists() and not output.is_file():
            raise StorageError(f"{output} is there already and is no file", "name a file to write")
        with _FlushedFile(hidden) as raw, io.BufferedRandom(raw) as file:
            yield cast(BinaryIO, file)
            file.flush()
            raw.settle()
        hidden.replace(output)
    except OSError as exc:
        raise StorageError(
            f"{output} cannot be written: {exc.strerror}", "check its permissions and free space"
        ) from exc
    finally:
        with suppress(OSError):  # the file got its name, or could not be created
            hidden.unlink()


class _FlushedFile(io.FileIO):
    """A file that is flushed to the disk while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._flusher = Flusher(self.fileno())

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override] # FileIO takes any buffer
        """Write `data`; raise OSError, also for a fault that an earlier flush met."""
        written = super().write(data)
        self._flusher.wrote(written)
        return written

    def settle(self) -> None:
        """Ensure that all bytes are on the disk; raise OSError as `write`."""
        self._flusher.settle()

    def close(self) -> None:
        """Close the file after the last flush has ended."""
        self._flusher.close()
        super().close()
