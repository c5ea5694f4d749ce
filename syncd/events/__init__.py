"""What senders say was pushed: authenticated, parsed, and reduced to where to look again.

Sans I/O, a module for each sender.  A delivery whose signature is not right is never parsed.
"""

from syncd.events.github import BODY_MAX, Delivery, pushed_by, read_delivery
from syncd.events.push import Ignored, PushEvent
from syncd.events.redelivery import (
    KEPT,
    Attempt,
    Hook,
    Network,
    attempts_of,
    hooks_of,
    missed,
    networks_of,
)
from syncd.events.sender import Call, Notice, Sender
from syncd.events.senders import SENDERS

__all__ = [
    "BODY_MAX",
    "KEPT",
    "SENDERS",
    "Attempt",
    "Call",
    "Delivery",
    "Hook",
    "Ignored",
    "Network",
    "Notice",
    "PushEvent",
    "Sender",
    "attempts_of",
    "hooks_of",
    "missed",
    "networks_of",
    "pushed_by",
    "read_delivery",
]
