"""Requests that name a key, and are answered once however often they are sent.

Whoever lost an answer asks again with the same key, and gets what the first request led to: the
same answer, also after a restart; or the wait for it; or, where syncd ended in between, what is
found to be made by the mark that the key stands for.  The body is known by its digest alone,
without its secrets.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from syncd.errors import ReusedKeyError
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger

Make = Callable[[str, bool], Awaitable[Mapping[str, Any]]]
"""Does what is asked for under a mark, and returns the answer as JSON.

The second argument tells that it was begun before, so that it may be done already.
"""


_SECRETS = ("password", "credentials")
"""The keys of a body whose values are known to nobody but the request itself."""


class IdempotentRequests:
    """The requests with a key.  Lives in one event loop."""

    def __init__(self, ledger: Ledger, executors: Executors) -> None:
        self._ledger = ledger
        self._executors = executors
        self._running: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def answer(self, key: str, body: Mapping[str, Any], make: Make) -> Mapping[str, Any]:
        """Return the answer that belongs to a key; what fails may be asked for again.

        Raise ReusedKeyError where the key came with another body, else what `make` raises.  What
        was begun goes on when the wait for it ends.
        """
        digest = _digest(body)
        rows = self._ledger.containers
        row = await self._executors.ledger(rows.request, key, digest, secrets.token_hex(8))
        if row.body != digest:
            raise ReusedKeyError(
                "the Idempotency-Key came with another request before",
                "use a new key for a new request",
            )
        if row.answer is not None:
            answer: Mapping[str, Any] = json.loads(row.answer)
            return answer
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._made(key, row.mark, row.known, make))
            self._running[key] = task
            task.add_done_callback(lambda end: self._ended(key, end))
        return await asyncio.shield(task)

    async def _made(self, key: str, mark: str, known: bool, make: Make) -> Mapping[str, Any]:
        answer = await make(mark, known)
        await self._executors.ledger(self._ledger.containers.answered, key, json.dumps(answer))
        return answer

    def _ended(self, key: str, task: asyncio.Task[Mapping[str, Any]]) -> None:
        """Forget a request that has ended; its error is known to whoever waited."""
        del self._running[key]
        if not task.cancelled():
            task.exception()


def _digest(body: Mapping[str, Any]) -> str:
    """Return the digest of a body, of whose secrets only their presence counts."""
    told = {key: bool(value) if key in _SECRETS else value for key, value in body.items()}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
