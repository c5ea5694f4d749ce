"""A repository whose registry has mirrors: they are asked first, and passed over when they fail.

A digest names the same bytes wherever they lie, so many hosts behind one pull-through cache cost
the registry one pull.  No mirror is believed: documents are verified here, and blobs where their
bytes are kept.  The registry itself says what a tag means, which tags there are, and what refers to
a manifest, unless the configuration lets mirrors say so.  A mirror never gets the registry's
credentials, and one that fails or lies is left alone for a while, whoever asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from syncd.errors import (
    BrokenStreamError,
    DeniedError,
    ImageError,
    NoRangesError,
    NotFoundError,
    OneRangeError,
    RegistryError,
)
from syncd.oci.access import Repository
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.mirror import MirrorLocation
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest, Reference
from syncd.oci.registry.session import Timeouts

FAILED = 300.0
"""Seconds for which a mirror that fails is left alone."""
LIED = 3600.0
"""Seconds for which a mirror is left alone whose bytes were not those of the digest."""
IMPATIENT = Timeouts(connect=5.0, read=30.0, look=30.0, attempts=1)
"""How long a mirror is waited for: it may fetch what it is asked for, but the registry has it."""

log = structlog.stdlib.get_logger()

T = TypeVar("T")


class Mirror(NamedTuple):
    """A mirror, and the repository there."""

    location: MirrorLocation
    repository: Repository


class LeftAlone:
    """The mirrors that are not asked for a while.  Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[MirrorLocation, float] = {}
        self._lock = threading.Lock()

    def has(self, mirror: MirrorLocation) -> bool:
        """Tell whether the mirror is left alone now."""
        with self._lock:
            return self._until.get(mirror, 0.0) > self._clock()

    def add(self, mirror: MirrorLocation, seconds: float, reason: str) -> None:
        """Leave a mirror alone for so many seconds, and tell so once."""
        with self._lock:
            now = self._clock()
            told = self._until.get(mirror, 0.0) > now
            self._until[mirror] = max(self._until.get(mirror, 0.0), now + seconds)
        if not told:
            log.warning(
                "mirror passed over", mirror=str(mirror), reason=reason, minutes=seconds / 60
            )


class MirroredRepository:
    """A repository of `source`, with its mirrors in the order in which they are asked.

    `tags` lets mirrors say what tags mean and which there are.  What is kept of one job: a mirror
    that gave bytes in this object is known to it.  Safe to use from several threads.
    """

    def __init__(
        self,
        source: Repository,
        mirrors: Iterable[Mirror],
        left_alone: LeftAlone,
        *,
        tags: bool = False,
    ) -> None:
        self._source = source
        self._mirrors = tuple(mirrors)
        self._left_alone = left_alone
        self._tags = tags
        self._gave: set[MirrorLocation] = set()
        self._mistrusted: set[MirrorLocation] = set()
        self._lock = threading.Lock()

    def resolve(self, reference: Reference) -> Descriptor:
        """Return what a tag or digest means now; raise as the registry does."""
        if reference.digest is None and not self._tags:
            return self._source.resolve(reference)
        return self._ask(lambda repository: repository.resolve(reference))

    def tagged(self, reference: Reference) -> bytes:
        """Return the document that a tag means now; raise as the registry does."""
        if not self._tags:
            return self._source.tagged(reference)
        return self._ask(lambda repository: repository.tagged(reference))

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified against its descriptor."""
        return self._ask(lambda repository: repository.document(wanted))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; a stream that breaks is opened anew at the next place."""
        return self._open(lambda repository: repository.blob(wanted, offset))

    def ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Open ranges of a blob, at the first place that serves any."""
        return self._open(lambda repository: repository.ranges(wanted, ranges))

    def tags(self) -> list[str]:
        """Return all tags of the repository; raise as the registry does."""
        return self._ask(lambda each: each.tags()) if self._tags else self._source.tags()

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Return what the registry itself says refers to a manifest."""
        return self._source.referrers(subject)

    def mistrust(self, known: int | None = None) -> int:
        """Mistrust the mirrors whose blobs were read, unless more than `known` are already.

        Bytes that are wrong show only when more of them are read, and then they are perhaps of
        several, or wrong in the registry, too.  Return how many are mistrusted.
        """
        with self._lock:
            if known is None or len(self._mistrusted) <= known:
                self._mistrusted |= self._gave
            return len(self._mistrusted)

    def settle(self, *, lied: bool) -> None:
        """Leave the mistrusted mirrors alone for an hour if they lied; else ask them again."""
        for location in (each.location for each in self._mirrors if lied):
            if location in self._mistrusted:
                self._left_alone.add(location, LIED, "bytes are not those of their digest")
        self._mistrusted.clear()
        self._gave.clear()

    def _open(self, open_at: Callable[[Repository], Reader]) -> Reader:
        """Open a stream at a mirror, or at the registry."""
        for mirror in self._asked():
            try:
                stream = open_at(mirror.repository)
            except OneRangeError:
                raise  # who asks will ask for one range, here again
            except (RegistryError, ImageError) as exc:
                if not _only_lacks(exc):
                    self._pass_over(mirror, exc)
                continue
            with self._lock:
                self._gave.add(mirror.location)
            return _Stream(stream, partial(self._pass_over, mirror))
        return open_at(self._source)

    def _ask(self, question: Callable[[Repository], T]) -> T:
        """Ask the mirrors, then the registry."""
        for mirror in self._asked():
            try:
                return question(mirror.repository)
            except (RegistryError, ImageError) as exc:
                if _only_lacks(exc):
                    continue
                self._pass_over(mirror, exc)
        return question(self._source)

    def _asked(self) -> Iterable[Mirror]:
        return (
            each
            for each in self._mirrors
            if each.location not in self._mistrusted and not self._left_alone.has(each.location)
        )

    def _pass_over(self, mirror: Mirror, fault: RegistryError | ImageError) -> None:
        lied = isinstance(fault, ImageError)
        self._left_alone.add(mirror.location, LIED if lied else FAILED, str(fault))


class _Stream:
    """A mirror's stream of a blob; where it breaks, the mirror is passed over."""

    def __init__(self, stream: Reader, broke: Callable[[BrokenStreamError], None]) -> None:
        self._stream = stream
        self._broke = broke

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except BrokenStreamError as exc:
            self._broke(exc)
            raise

    def close(self) -> None:
        self._stream.close()


def _only_lacks(fault: RegistryError | ImageError) -> bool:
    """Tell whether a mirror does not have or do something, which is no fault of it."""
    lacks = isinstance(fault, NotFoundError | NoRangesError)
    return lacks and not isinstance(fault, DeniedError)
