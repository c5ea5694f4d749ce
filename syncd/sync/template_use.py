"""Finished templates that somebody uses: a lock on each keeps every process from removing it.

The kernel frees a lock when its process ends, however it ends (flock(2)).
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

TABLE = ".frames"
"""Behind a finished template's name: the table of its frames."""
WARNINGS = ".warnings"
"""Behind a finished template's name: sentences on its image, one a line."""


class TemplateUse:
    """The finished templates that one job uses, until the context ends.  Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files = ExitStack()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
            self._files.close()

    def add(self, path: Path) -> bool:
        """Use a finished template; tell whether it is there."""
        with self._lock, ExitStack() as otherwise:
            if self._over:
                return False
            try:
                file = otherwise.enter_context(path.open("rb"))
                fcntl.flock(file, fcntl.LOCK_SH)
            except OSError:
                return False
            if not os.fstat(file.fileno()).st_nlink:
                return False
            self._files.push(otherwise.pop_all())
            return True


def remove_unused(template: Path) -> bool:
    """Remove a finished template, and what lies beside it, unless it is used; tell whether."""
    with suppress(FileNotFoundError), template.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        template.unlink(missing_ok=True)
    for suffix in (TABLE, WARNINGS):
        template.with_name(f"{template.name}{suffix}").unlink(missing_ok=True)
    return True
