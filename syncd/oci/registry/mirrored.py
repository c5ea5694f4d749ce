"""A repository whose registry has mirrors: they are asked first, and passed over when they fail.

A digest names the same bytes wherever they lie, so many hosts behind one pull-through cache cost
the registry one pull.  No mirror is believed: documents are verified here, and blobs where their
bytes are kept.  The registry itself says what a tag means, which tags there are, and what refers to
a manifest, unless the configuration lets mirrors say so.  A mirror never gets the registry's
credentials, and one that fails or lies is left alone for a while, whoever asks.

Bytes that are wrong are a mirror's fault, or the image's.  So others are asked for these very
bytes, and a mirror lied if theirs are right; what else it has is taken meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
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
    VerificationError,
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


class _Bytes(NamedTuple):
    """Bytes of a blob: all of them, or ranges.

    Who pushes an image may say several things of one digest, and not all of them need be right.
    """

    blob: Descriptor
    is_whole: bool


class Mirror(NamedTuple):
    """A mirror, and the repository there."""

    location: MirrorLocation
    repository: Repository


class LeftAlone:
    """The mirrors that are not asked for a while.  Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[MirrorLocation, float] = {}
        self._told: dict[MirrorLocation, float] = {}  # seconds
        self._lock = threading.Lock()

    def has(self, mirror: MirrorLocation) -> bool:
        """Tell whether the mirror is left alone now."""
        with self._lock:
            return self._until.get(mirror, 0.0) > self._clock()

    def add(self, mirror: MirrorLocation, seconds: float, reason: str) -> None:
        """Leave a mirror alone for so many seconds, and tell so, unless it is for as long now."""
        with self._lock:
            now, until = self._clock(), self._until.get(mirror, 0.0)
            is_told = until > now and self._told[mirror] >= seconds
            if not is_told:
                self._told[mirror] = seconds
            self._until[mirror] = max(until, now + seconds)
        if not is_told:
            log.warning(
                "mirror passed over", mirror=str(mirror), reason=reason, minutes=seconds / 60
            )


class MirroredRepository:
    """A repository of `source`, with its mirrors in the order in which they are asked.

    `tags` lets mirrors say what tags mean and which there are.  It is of one job: until it is
    settled it knows of each blob who gave its bytes, and who is not asked for these any more.  Safe
    to use from several threads.
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
        self._gave: defaultdict[_Bytes, list[MirrorLocation | None]] = defaultdict(list)
        self._mistrusted: defaultdict[_Bytes, set[MirrorLocation]] = defaultdict(set)
        self._suspected: defaultdict[_Bytes, set[MirrorLocation]] = defaultdict(set)
        self._mixed: set[_Bytes] = set()  # which several gave
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
        given = _Bytes(wanted, is_whole=True)
        if offset:
            self._note(given, None)  # perhaps others gave what is before
        return self._open(given, lambda repository: repository.blob(wanted, offset))

    def ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Open ranges of a blob, at the first place that serves any."""
        given = _Bytes(wanted, is_whole=False)
        return self._open(given, lambda repository: repository.ranges(wanted, ranges))

    def tags(self) -> list[str]:
        """Return all tags of the repository; raise as the registry does."""
        return self._ask(lambda each: each.tags()) if self._tags else self._source.tags()

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Return what the registry itself says refers to a manifest."""
        return self._source.referrers(subject)

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:
        """Ask a mirror no more for these bytes of a blob, which it gave, and which were wrong.

        Return whether it is worth it to ask again.  Where several gave them, who of these is to
        blame shows when one alone does: so the same are asked again, once, and then the first one
        no more.  A mirror that gave them alone is suspected of a lie.
        """
        wrong = _Bytes(blob, is_whole=whole)
        with self._lock:
            gave = self._gave.pop(wrong, [])
            mirrors = [mirror for mirror in gave if mirror]
            is_mixed = len(gave) > 1 and wrong not in self._mixed
            if is_mixed:
                self._mixed.add(wrong)
            else:
                self._mistrusted[wrong].update(mirrors[:1])
            if len(gave) == 1:
                self._suspected[wrong].update(mirrors)
        if mirrors:
            names = [str(mirror) for mirror in mirrors]
            log.warning(
                "wrong bytes from a mirror", blob=str(blob.digest), mirrors=names, whole=whole
            )
        return is_mixed or bool(mirrors)

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Leave those alone for an hour who are suspected, if others gave the bytes since."""
        right = _Bytes(blob, is_whole=whole)
        with self._lock:
            suspected = self._suspected.pop(right, set()) if self._gave.get(right) else set()
        for mirror in (each.location for each in self._mirrors if each.location in suspected):
            self._left_alone.add(mirror, LIED, f"blob {blob.digest} has other bytes elsewhere")

    def settle(self) -> None:
        """Forget who gave what: what is claimed of a blob is another image's from now on."""
        with self._lock:
            for known in (self._gave, self._mistrusted, self._suspected, self._mixed):
                known.clear()

    def _open(self, wanted: _Bytes, open_at: Callable[[Repository], Reader]) -> Reader:
        """Open a stream at a mirror that is not mistrusted, or at the registry."""
        for mirror in self._asked():
            if mirror.location in self._mistrusted.get(wanted, ()):
                continue
            try:
                stream = open_at(mirror.repository)
            except OneRangeError:
                raise  # who asks will ask for one range, here again
            except RegistryError as exc:
                self._pass_over(mirror, exc)
                continue
            self._note(wanted, mirror.location)
            return _Stream(stream, partial(self._pass_over, mirror))
        stream = open_at(self._source)
        self._note(wanted, None)
        return stream

    def _note(self, given: _Bytes, by: MirrorLocation | None) -> None:
        """Note who gave bytes, None for the registry or whoever did before.

        The late answer of a mirror that is mistrusted by now does not count: nobody waits for it.
        """
        with self._lock:
            if by not in self._mistrusted[given] and by not in self._gave[given]:
                self._gave[given].append(by)

    def _ask(self, question: Callable[[Repository], T]) -> T:
        """Ask the mirrors, then the registry.

        A mirror whose answer is not right lied only if another's is: who pushes an image decides
        what is in its documents.
        """
        wrong: list[tuple[Mirror, ImageError]] = []
        for mirror in self._asked():
            try:
                answer = question(mirror.repository)
            except RegistryError as exc:
                self._pass_over(mirror, exc)
            except ImageError as exc:
                log.warning(
                    "wrong answer from a mirror", mirror=str(mirror.location), reason=exc.what
                )
                wrong.append((mirror, exc))
            else:
                break
        else:
            answer = question(self._source)
        for mirror, fault in wrong:
            lied = isinstance(fault, VerificationError)
            self._left_alone.add(mirror.location, LIED if lied else FAILED, str(fault))
        return answer

    def _asked(self) -> Iterable[Mirror]:
        return (each for each in self._mirrors if not self._left_alone.has(each.location))

    def _pass_over(self, mirror: Mirror, fault: RegistryError) -> None:
        """Leave a mirror alone that fails; what it only lacks, or does not do, is no fault."""
        lacks = isinstance(fault, NotFoundError | NoRangesError)
        if not lacks or isinstance(fault, DeniedError):
            self._left_alone.add(mirror.location, FAILED, str(fault))


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
