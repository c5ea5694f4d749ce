"""The one tree of errors.

Every error says what happened, where, and what to do about it, in one sentence that an
administrator can act on; `temporary` says whether the same act may succeed later without anyone
changing anything.  Doors wrap the errors of their libraries into these, so that nothing above
them ever catches a foreign exception.
"""

from __future__ import annotations


class SyncdError(Exception):
    """Anything syncd reports to a person instead of crashing.

    `what` states the fault and its place; `hint`, when there is one, states what to do.
    """

    temporary = False

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = _line(what)
        self.hint = _line(hint)

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


def _line(text: str) -> str:
    """Keep a text that may quote an image on one line, and harmless to a terminal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class InvalidReferenceError(SyncdError):
    """A reference, digest or platform that does not follow its grammar."""


class ConfigError(SyncdError):
    """The configuration file is unreadable or wrong; `faults` holds every fault found."""

    def __init__(self, what: str, faults: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(what, hint)
        self.faults = faults

    def __str__(self) -> str:
        return "\n  ".join((super().__str__(), *self.faults))


class RequestError(SyncdError):
    """Something was asked for that is wrong as it was written."""


class StillRunningError(SyncdError):
    """A job that goes on, but longer than somebody wants to wait for it."""

    temporary = True


class EventError(SyncdError):
    """A webhook delivery whose body is not what its headers promise."""


class ImageError(SyncdError):
    """An image that breaks a specification, or asks for what syncd does not do."""


class VerificationError(ImageError):
    """Bytes whose size or digest differs from what their descriptor promises."""


class LimitError(ImageError):
    """An image that goes beyond a configured bound."""


class RegistryError(SyncdError):
    """A registry that did not give what was asked of it."""


class NotFoundError(RegistryError):
    """The registry does not have it, or hides it from these credentials."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached, is overloaded, or broke off; later it may answer."""

    temporary = True


class StorageError(SyncdError):
    """Local disk refused: full, read-only, not permitted, or corrupt."""


class PublishError(SyncdError):
    """A target did not take a template, or could not be asked."""


class TargetUnavailableError(PublishError):
    """A target that cannot be reached now; later it may answer."""

    temporary = True


class LedgerError(SyncdError):
    """The ledger cannot be opened, or holds a schema this version does not know."""
