"""The one tree of errors.

Every error says what happened, where, and what to do about it, in one sentence that an
administrator can act on; `temporary` says whether the same act may succeed later without anyone
changing anything.  Doors wrap the errors of their libraries into these, so that nothing above
them ever catches a foreign exception.
"""

from __future__ import annotations

from collections.abc import Sequence


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
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


class InvalidReferenceError(SyncdError):
    """A reference, digest or platform that does not follow its grammar."""


def why_unread(exc: OSError | UnicodeDecodeError) -> str:
    """Return why a file of text cannot be read, in words without its path and its content."""
    return "it is not text in UTF-8" if isinstance(exc, UnicodeDecodeError) else exc.strerror or "?"


class ConfigError(SyncdError):
    """The configuration file is unreadable or wrong; `faults` holds every fault found."""

    def __init__(self, what: str, faults: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(what, hint)
        self.faults = faults

    def __str__(self) -> str:
        return "\n  ".join((super().__str__(), *self.faults))


class RequestError(SyncdError):
    """Something was asked for that is wrong as it was written."""


class UnpublishedError(SyncdError):
    """Something that syncd did not publish, as far as its ledger and the targets know."""


class NotCachedError(UnpublishedError):
    """An image that no target has as its tag means it now."""

    def __init__(self, reference: object) -> None:
        super().__init__(f"{reference} is not cached as it is now", "fetch it with --pull (pull=1)")


class UnknownVolumeError(UnpublishedError):
    """A volume that the ledger does not know."""

    def __init__(self, volume: str) -> None:
        super().__init__(
            f"syncd published no volume {volume}",
            "write it whole, STORAGE:vztmpl/NAME, as syncd status names it",
        )


class ReusedKeyError(SyncdError):
    """A key that stands for one request, and came with another one."""


class StillRunningError(SyncdError):
    """A job that goes on, but longer than somebody wants to wait for it."""

    temporary = True


class EventError(SyncdError):
    """A webhook delivery whose body is not what its headers promise."""


class SignatureError(EventError):
    """A webhook delivery that was not signed with our secret."""


class GitHubError(SyncdError):
    """GitHub's API did not give what was asked of it, or did not do it."""


class GitHubUnavailableError(GitHubError):
    """GitHub's API cannot be reached, is overloaded, or asks for a wait; later it may answer.

    `retry_after` is how many seconds it asks its caller to wait.
    """

    temporary = True

    def __init__(self, what: str, hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after


class ImageError(SyncdError):
    """An image that breaks a specification, or asks for what syncd does not do."""


class NoImageError(ImageError):
    """Something else than a container image: a chart, a signature, an index without images."""


class VerificationError(ImageError):
    """Bytes whose size or digest differs from what their descriptor promises."""


class LimitError(ImageError):
    """An image that goes beyond a configured bound."""


class NoProcessError(SyncdError):
    """No process to convert in: the machine gives none, or lost it; later it may."""

    temporary = True


class ConversionDiedError(SyncdError):
    """A conversion whose process died before it was done; the next attempt may be luckier."""

    temporary = True


class UntrustedError(ImageError):
    """An image that no signature vouches for of those that the configuration wants."""


class UnsignedError(UntrustedError):
    """An image of which no signature is found at all; one may be on its way."""

    temporary = True


class EvidenceError(ImageError):
    """One signature that does not vouch for an image, and why not."""


class TrustError(SyncdError):
    """A key or a trust root that the configuration names and that cannot be used."""


class TrustRootUnavailableError(TrustError):
    """The public trust root cannot be brought up to date now; later it may be."""

    temporary = True


class RegistryError(SyncdError):
    """A registry that did not give what was asked of it."""


class NotFoundError(RegistryError):
    """The registry does not have it, or hides it from these credentials."""


class NoRangesError(RegistryError):
    """A registry does not serve the range of a blob that it is asked for."""


class OneRangeError(NoRangesError):
    """A registry does not serve several ranges of a blob in one answer, but perhaps one."""


class AddressRefusedError(RegistryError):
    """A host that is at no public address, and that the configuration does not name."""


class DeniedError(NotFoundError):
    """The registry does not let these credentials in, or hides that it has nothing."""


class PlainHttpError(RegistryError):
    """The registry does not speak HTTPS, but probably HTTP, which nobody has allowed."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached, is overloaded, or broke off; later it may answer.

    `retry_after` is how many seconds the registry asks its caller to wait.
    """

    temporary = True

    def __init__(self, what: str, hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after


class BrokenStreamError(RegistryUnavailableError):
    """A registry's stream of bytes that broke off; another one may have what is left."""


class SlowStreamError(BrokenStreamError):
    """A registry's stream of bytes that was given up, since it brings too few bytes a second."""


class StorageError(SyncdError):
    """Local disk refused: full, read-only, not permitted, or corrupt."""


class HostFaultError(SyncdError):
    """A call that the host refused, though no job foresees that; later it may not."""

    temporary = True

    @classmethod
    def of(cls, error: Exception) -> HostFaultError | None:
        """Return the error for a refusal of the host, or None for an error of another kind."""
        thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
        if not thread and not isinstance(error, (OSError, MemoryError)):
            return None
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        where = getattr(error, "filename", None)
        return cls(
            f"this host refuses: {reason}{f' ({where})' if where else ''}",
            "look at its disk, its memory, and the bounds of the service (LimitNOFILE, TasksMax)",
        )


class OccupiedNameError(StorageError):
    """A name in a folder that another file has; syncd never writes over a file."""


class GrowingFileError(StorageError):
    """A name in a folder whose file somebody else still writes; later it may be whole."""

    temporary = True


class FullStateError(StorageError):
    """What a running job needs more on disk is beyond `state.cache_max`, or beyond the disk."""

    temporary = True


class LostFrameError(StorageError):
    """A frame of an earlier template that was counted on is gone, or is not what it was."""


class PublishError(SyncdError):
    """A target did not take a template, or could not be asked."""


class TargetUnavailableError(PublishError):
    """A target that cannot be reached now; later it may answer."""

    temporary = True


class NoRoomError(PublishError):
    """A disk of this host, or a target, without room for a job; later there may be room."""

    temporary = True


class WrongFileError(PublishError):
    """A target has another file under the name of a template; syncd never writes over a file.

    `volumes` are the volume ids of such files, each with the node that it lies on; the node is
    None for a storage that is shared.
    """

    def __init__(self, what: str, hint: str, volumes: Sequence[tuple[str, str | None]]) -> None:
        super().__init__(what, hint)
        self.volumes = tuple(volumes)


class EndpointUnreachableError(TargetUnavailableError):
    """No connection to an endpoint came about, so nothing was sent.

    A retry may help, at this endpoint or at another endpoint, for any request.
    """


class UntrustedCertificateError(EndpointUnreachableError):
    """The certificate of an endpoint is not the trusted certificate, so nothing was sent.

    A retry at this endpoint does not help until somebody changes the configuration or the
    certificate; another endpoint may answer.
    """

    temporary = False


class ConnectionLostError(TargetUnavailableError):
    """The connection was lost after the request was sent, so the request may have had its effect.

    A retry may help, but only a request that may take effect twice is simply sent again; for any
    other request the caller finds out first what came of it.
    """


def joined(errors: Sequence[PublishError]) -> PublishError:
    """Return one error that tells of all `errors`, of which there is at least one.

    The whole is temporary, a TargetUnavailableError, only if each part is temporary: a retry does
    not help as long as one part needs somebody to act.  Each fault and each hint is told once.
    """
    what = "; ".join(dict.fromkeys(error.what for error in errors))
    hint = "; ".join(dict.fromkeys(error.hint for error in errors if error.hint))
    temporary = all(error.temporary for error in errors)
    return TargetUnavailableError(what, hint) if temporary else PublishError(what, hint)


class LedgerError(SyncdError):
    """The ledger cannot be opened, or holds a schema this version does not know."""


class LedgerUnavailableError(LedgerError):
    """The ledger gives no answer in time; later it may."""

    temporary = True


class CrowdedError(SyncdError):
    """So many ask for the same kind of work that no more is begun; later there may be room."""

    temporary = True


class StoppedError(SyncdError):
    """The daemon is stopping; the job stays in the ledger and is resumed at the next start."""

    temporary = True
