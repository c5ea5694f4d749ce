"""What senders say was pushed: authenticated, parsed, and reduced to where to look again.

Sans I/O, a module for each sender.  A delivery whose signature is not right is never parsed.
"""

from syncd.events.github import BODY_MAX, Delivery, pushed_by, read_delivery
from syncd.events.push import Ignored, PushEvent
from syncd.events.sender import Call, Notice, Sender
from syncd.events.senders import SENDERS

__all__ = [
    "BODY_MAX",
    "SENDERS",
    "Call",
    "Delivery",
    "Ignored",
    "Notice",
    "PushEvent",
    "Sender",
    "pushed_by",
    "read_delivery",
]
