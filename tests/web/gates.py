"""A progress that holds a job at its first byte, until the test lets it go on."""

from __future__ import annotations

import asyncio
import threading

from syncd.progress import Advance


class Gate:
    """A progress whose steps begin, and whose bytes wait.  Threads wait here, the test does not."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Let the test know that a step began; each of its bytes waits."""

        def advance(_: int) -> None:
            self.begun.set()
            assert self.open.wait(20)

        return advance

    async def reached(self) -> None:
        """Wait until a job is held."""
        assert await asyncio.to_thread(self.begun.wait, 20)
