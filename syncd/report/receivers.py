"""Whoever is told: the services behind Apprise's URLs.

A URL carries passwords.  It is never part of an error, a log or a name: a receiver is called by its
position in the file and by its scheme.  Apprise's own log holds URLs as they are, and goes nowhere.
Of what a service answered, only its HTTP status is told.

`serve` is what the process of `syncd.report.telling` does: it loads this file alone, so nothing of
syncd is imported here.

Source: https://appriseit.com/library/; getrlimit(2), RLIMIT_DATA; proc_pid_oom_score_adj(5)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from apprise import NotifyBase

    from syncd.sync import Notification

MEMORY = 256 << 20
"""Bytes that the process which tells may take: an answer without end takes no more."""
_STACK = 512 << 10  # bytes of a thread, of which each receiver has one
_KILLED_FIRST = "1000"  # proc_pid_oom_score_adj(5)
_PASSED_OVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_STATUS = re.compile(r"error=([1-5][0-9]{2})\b")
_MARK_DIGITS = 4
"""Hex digits of a URL's digest that the ledger keeps: too few to find the URL by."""


class Message(NamedTuple):
    """A notification as the process that tells gets it; `severity` is Apprise's name of it."""

    number: int
    title: str
    body: str
    severity: str


@dataclass(frozen=True, slots=True)
class Receiver:
    """One URL, whose position in its file is counted from 1."""

    position: int
    url: str = field(repr=False)

    def fault(self) -> str | None:
        """Return what is wrong with the URL, or None; nobody is asked."""
        return None if self._service() is not None else self._no_url()

    def name(self) -> str:
        """Return what a person calls it, such as `URL 2 (ntfy)`."""
        service = self._service()
        return f"URL {self.position} ({_scheme(service)})" if service else f"URL {self.position}"

    @property
    def mark(self) -> str:
        """Return a mark by which it is known again, and from which nothing can be learnt."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:_MARK_DIGITS]

    def tell(self, notification: Notification | Message) -> str | None:
        """Deliver a notification; return None, or why that failed.  Blocking; never raise.

        How long that takes is the service's to decide: one that trickles is never done.
        """
        try:
            return self._tell(notification)
        except Exception as exc:  # noqa: BLE001 - a service's plugin may raise anything
            return f"{self.name()}: {type(exc).__name__}"

    def _tell(self, notification: Notification | Message) -> str | None:
        import apprise

        service = self._service()
        if service is None:
            return self._no_url()
        if "overflow_mode" not in vars(service):  # the URL does not say it
            # A message that is too long for a service stays one, and is not refused.
            service.overflow_mode = apprise.OverflowMode.TRUNCATE
        sender = apprise.Apprise()
        sender.add(service)
        result = sender.notify(
            title=notification.title,
            body=notification.body,
            notify_type=apprise.NotifyType(notification.severity),
            body_format=apprise.NotifyFormat.TEXT,
        )
        if result:
            return None
        said = " ".join(entry.message for entry in result.logs())
        status = _STATUS.search(said)
        if status:
            return f"{self.name()} answers {status[1]}"
        if "Connection error" in said or "Socket" in said:
            return f"{self.name()} cannot be reached"
        return f"{self.name()} did not take the message"

    def _service(self) -> NotifyBase | None:
        import apprise  # only here: it takes its time, and most processes tell nobody

        # Its lines hold URLs as they are, passwords and all.
        logging.getLogger("apprise").propagate = False
        service = apprise.Apprise.instantiate(self.url)
        return service if isinstance(service, apprise.NotifyBase) else None

    def _no_url(self) -> str:
        return (
            f"URL {self.position} is not as Apprise wants it: see https://appriseit.com/services/"
        )


def receivers_of(urls: Sequence[str]) -> list[Receiver]:
    """Return the receivers behind URLs."""
    return [Receiver(position, url) for position, url in enumerate(urls, 1)]


def distinct_marks(receivers: Sequence[Receiver]) -> frozenset[str]:
    """Return the marks that no two receivers share: only these tell who has a message."""
    counts = Counter(receiver.mark for receiver in receivers)
    return frozenset(mark for mark, count in counts.items() if count == 1)


def _scheme(service: NotifyBase) -> str:
    found = service.schema
    return found if isinstance(found, str) else str(service.service_name)


def serve() -> None:
    """Tell whom standard input names, side by side, and say on standard output how that went.

    Input is one line of JSON, `[[position, url, [message, ...]], ...]`; each line of output is
    `[position, number, fault]`.  The process ends once its input does, whatever is under way: the
    daemon has heard enough, or is gone.  The signals that systemd and terminals send to all
    processes are the daemon's.
    """
    for number in _PASSED_OVER:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    threading.stack_size(_STACK)
    output, saying = os.fdopen(os.dup(1), "w"), threading.Lock()
    os.dup2(2, 1)  # a plugin that prints says nothing of how it went

    def say(*end: object) -> None:
        with saying:
            output.write(json.dumps(end) + "\n")
            output.flush()

    for position, url, messages in json.loads(sys.stdin.readline()):
        receiver = Receiver(position, url)
        work = (receiver, [Message(*message) for message in messages], say)
        threading.Thread(target=_tell_in_order, args=work, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


def _tell_in_order(
    receiver: Receiver, messages: Iterable[Message], say: Callable[..., None]
) -> None:
    """Tell a receiver message by message, up to the first failure."""
    for message in messages:
        fault = receiver.tell(message)
        say(receiver.position, message.number, fault)
        if fault is not None:
            return
