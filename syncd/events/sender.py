"""What every sender of events has: a name, a place for its secret, and a way to be read.

Sans I/O.  Whoever calls asks `is_authentic` first, and never has anything parsed that is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from syncd.errors import EventError
from syncd.events.push import Ignored, PushEvent

_NAME_MAX = 200

NAMELESS = Ignored("it names no container image")


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a sender, raw.

    `key` is what stands in the path behind the sender's own; it may be the secret, and so it is
    never part of what is printed.
    """

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False, default=b"")
    key: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Notice:
    """What an authentic call says: its id, the name of its event, and what was pushed.

    `id` is None where two pushes may look the same: then nothing tells a repetition from a push,
    and looking once too often is cheap.
    """

    id: str | None
    event: str
    pushed: PushEvent | Ignored


@dataclass(frozen=True, slots=True)
class Sender:
    """One kind of sender.

    `is_authentic(call, secret)` compares in constant time.  `read(call, registry)` parses an
    authentic call; `registry`, where it is not empty, is the registry's host, whatever the call
    says.  It raises EventError for what is no delivery.
    """

    name: str
    documentation: str
    is_authentic: Callable[[Call, str], bool]
    read: Callable[[Call, str], Notice]
    signs: bool = False
    """Whether the secret signs the body, so that the body has to be there."""
    in_path: bool = False
    """Whether the secret stands in the path: the sender has no other place for it."""


def header_name(value: str, header: str) -> str:
    """Return the id or event that a header holds; raise EventError where it is no such name."""
    if not (0 < len(value) <= _NAME_MAX and value.isprintable()):
        raise EventError(f"the delivery lacks its {header} header")
    return value


def body_id(body: bytes) -> str:
    """Return the id of a delivery whose body has the time or the id of its event in it."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def pushed_to(names: Iterable[str | None]) -> PushEvent | Ignored:
    """Return the push to what is named; None stands for what is no name."""
    repositories = frozenset(name for name in names if name)
    return PushEvent(repositories) if repositories else NAMELESS
